#!/bin/sh
# Whether nats-server is well, for the health check of its container: nats-health.sh [MONITORING_PORT [PID]]
# A stream that could not write to its disk never tries again (2.15), also when there is room; a server that was started
# while there was none goes on without JetStream. So the server is ended for either, and whoever keeps it running starts
# it anew; nothing that was acknowledged is lost with it. One that still reads its streams says neither.
answer=$(printf 'GET /healthz HTTP/1.0\r\n\r\n' | nc -w 2 127.0.0.1 "${1:-8222}")
case $answer in
  *'"status":"ok"'*) exit 0 ;;
  *'write error'* | *'JetStream not enabled'*) kill "${2:-1}" ;;
esac
exit 1
