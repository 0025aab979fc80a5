"""From a conversation to token ids: chat template, supervised tokens, packed rows. Knows no weights."""
