"""One training in several processes: each computes the gradient of a share of every optimizer step."""
