"""The smallest piece there is: `local_piece.py PORT MOOD MARK`, an HTTP server that answers `{}` to every GET.

Moods: `well`; `crash` exits at once; `deaf` ignores SIGTERM and has a child. MARK only recognizes the processes.
"""

import http.server
import signal
import subprocess
import sys


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")


def main(port: int, mood: str, mark: str) -> int:
    if mood == "crash":
        print("no way", flush=True)
        return 3
    if mood == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", mark])
    print("listening", flush=True)
    http.server.ThreadingHTTPServer(("127.0.0.1", port), _Handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
