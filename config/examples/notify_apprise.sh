#!/usr/bin/env bash
# [notify] command = "/usr/local/bin/notify_apprise.sh": to any service that Apprise knows (https://github.com/caronc/apprise).
set -euo pipefail
head -n 1 | exec apprise --title sage-sleepd "$APPRISE_URL"
