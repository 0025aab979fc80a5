#!/bin/sh
# [notify] command = "/usr/local/bin/notify_apprise.sh": to any service that Apprise knows (https://github.com/caronc/apprise).
head -n 1 | exec apprise --title sage-sleepd "$APPRISE_URL"
