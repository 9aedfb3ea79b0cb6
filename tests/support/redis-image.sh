#!/usr/bin/env bash
# Makes a container image of this machine's own Redis, so that the tests can run over testcontainers where no registry
# can be reached. It prints the image's name, which is for RELAY_TEST_REDIS_IMAGE:
#
#   RELAY_TEST_REDIS_IMAGE=$(tests/support/redis-image.sh) cargo test --test it store_contract
#
# Without Docker or Redis: exit code 1 and one sentence.
set -euo pipefail

name=relay-test-redis:7
command='CMD ["redis-server", "--protected-mode", "no", "--save", ""]'
"$(dirname "$0")/program-image.sh" "$name" "$command" redis-server redis-cli
echo "$name"
