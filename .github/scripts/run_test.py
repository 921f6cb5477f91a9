"""What .ci/run does on a machine that lacks something: with commands of a line each."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

RUN = Path(__file__).resolve().parents[2] / ".ci/run"


class Missing(unittest.TestCase):
    def run_with(self, **commands):
        """The finished process, where there are these commands and no others."""
        with tempfile.TemporaryDirectory() as folder:
            os.symlink(shutil.which("dirname"), Path(folder) / "dirname")
            for name, script in {"python3": "", "id": "echo 0", **commands}.items():
                command = Path(folder) / name.replace("_", "-")
                command.write_text(f"#!/bin/sh\n{script}\n")
                command.chmod(0o755)
            return subprocess.run(
                [shutil.which("bash"), RUN], env={"PATH": folder}, capture_output=True, text=True, timeout=60, check=False
            )

    def test_on_debian_apt_installs_it(self):
        done = self.run_with(uname="echo Linux x86_64", apt_get='echo "apt-get $*"; [ "$1" = update ]')
        self.assertEqual(done.returncode, 1, done.stderr)
        installed = "apt-get update\napt-get install -y --no-install-recommends gcc libc6-dev\n"
        self.assertEqual(done.stdout, installed)

    def test_without_an_installer_it_is_named(self):
        done = self.run_with(uname="echo Darwin arm64")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^run: install what Debian calls gcc libc6-dev\n")

    def test_no_proxy_and_no_server_of_the_system_is_wanted(self):
        done = self.run_with(uname="echo Darwin arm64", cc="", rustup="", df="echo room; exit 7")
        self.assertEqual(done.stderr, "")
        self.assertRegex(done.stdout, r"^room\n")


if __name__ == "__main__":
    unittest.main()
