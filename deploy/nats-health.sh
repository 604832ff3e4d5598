#!/bin/sh
# Whether nats-server is well, for the health check of its container: nats-health.sh [MONITORING_PORT [PID]]
# A stream that could not write to its disk never tries again (2.15), also when there is room. So the server is ended
# for that, and whoever keeps it running starts it anew; nothing that was acknowledged is lost with it.
answer=$(printf 'GET /healthz HTTP/1.0\r\n\r\n' | nc -w 2 127.0.0.1 "${1:-8222}")
case $answer in
  *'"status":"ok"'*) exit 0 ;;
  *'write error'*) kill "${2:-1}" ;;
esac
exit 1
