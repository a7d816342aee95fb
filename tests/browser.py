"Chromium for tests: a process of its own. It is killed with its whole family when it is done with or takes too long, so a browser that does not answer fails a test and never stops a run."
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

# the one without windows gives pictures at once and starts faster
CHROMIUM = next((p for name in ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
NEEDED = "there is no Chromium here: apt-get install chromium"
QUIET = ["--headless", "--no-sandbox", "--no-zygote", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-breakpad",
         "--disable-component-update", "--disable-extensions", "--disable-sync", "--mute-audio", "--hide-scrollbars", "--force-color-profile=srgb",
         "--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding"]


@contextmanager
def chromium(seconds=1000):
    "a browser to drive with Playwright; after `seconds` it is killed, and whoever still waits for it gets an error"
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    if not CHROMIUM: pytest.skip(NEEDED)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        log = Path(profile, "log")
        with open(log, "w") as out:
            process = subprocess.Popen([CHROMIUM, *QUIET, "--remote-debugging-port=0", f"--user-data-dir={profile}"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        watch = threading.Timer(seconds, kill_family, [process])
        watch.start()
        try:
            port = wait_for(lambda: port_in(Path(profile, "DevToolsActivePort")), process, log)
            with sync_api.sync_playwright() as p:
                try: yield p.chromium.connect_over_cdp(f"http://127.0.0.1:{port}")
                finally: kill_family(process) # not `close`, which waits for an answer
        finally:
            watch.cancel()
            kill_family(process)

def kill_family(process):
    "a process that leads a session, and all that it started there"
    try: os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError: pass
    try: process.wait(30)
    except subprocess.TimeoutExpired: pass # the kernel does not let go of it: nobody waits for that

def wait_for(found, process, log):
    "what `found` gives, once it gives something; a process that ended before has said why in its log"
    for _ in range(1200):
        if x := found(): return x
        assert process.poll() is None, log.read_text()
        time.sleep(.1)
    raise AssertionError(log.read_text())

def port_in(path):
    "the port at which Chromium listens: the first line of a file that it writes"
    lines = path.read_text().splitlines() if path.exists() else []
    return int(lines[0]) if lines else None

@contextmanager
def explored(folder, *words):
    "what `vad explore` serves, stopped by Ctrl-C at the end: the file that leads on to the page, and the address with its token"
    with tempfile.TemporaryDirectory() as d:
        log = Path(d, "log")
        with open(log, "w") as out:
            server = subprocess.Popen([sys.executable, "-m", "vad", "explore", *map(str, words), "--no-browser"], stdout=out, stderr=out, cwd=folder)
        try:
            entrance = wait_for(lambda: entrance_in(log), server, log)
            assert stat.S_IMODE(entrance.stat().st_mode) == 0o600 and stat.S_IMODE(entrance.parent.stat().st_mode) == 0o700
            address = re.search('url=([^"]+)"', entrance.read_text())[1]
            wait_for(lambda: turns_away(address), server, log)
            yield entrance, address
        finally:
            server.send_signal(signal.SIGINT)
            try: server.wait(120)
            except subprocess.TimeoutExpired: server.kill()
        said = log.read_text()
    assert server.returncode == 0 and not entrance.exists()
    assert re.search("token=([^&]+)", address)[1] not in said and "Traceback" not in said

def entrance_in(log):
    found = re.search(r"file://(\S+)", log.read_text())
    return Path(found[1]) if found else None

def turns_away(address):
    "whether somebody listens, who lets nobody in without the token"
    try: urllib.request.build_opener(Stay).open(address.split("?")[0], timeout=60)
    except urllib.error.HTTPError as e:
        assert e.code in (302, 403), e
        return True
    except (urllib.error.URLError, ConnectionError, TimeoutError): return False # nobody listens yet
    raise AssertionError("a stranger was let in")

class Stay(urllib.request.HTTPRedirectHandler):
    "Does not follow."
    def redirect_request(self, *args): return None
