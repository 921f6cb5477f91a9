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
            for name, script in {"cc": "", "python3": "", **commands}.items():
                command = Path(folder) / name
                command.write_text(f"#!/bin/sh\n{script}\n")
                command.chmod(0o755)
            return subprocess.run(
                [shutil.which("bash"), RUN], env={"PATH": folder}, capture_output=True, text=True, timeout=60, check=False
            )

    def test_on_macos_brew_installs_it_by_its_names(self):
        done = self.run_with(uname="echo Darwin arm64", brew='echo "brew $*"; exit 7')
        self.assertEqual(done.returncode, 7, done.stderr)
        self.assertRegex(done.stdout, r"^brew install tinyproxy( nginx)?\n$")

    def test_without_an_installer_it_is_named(self):
        done = self.run_with(uname="echo Darwin arm64")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^run: install what Debian calls tinyproxy")


if __name__ == "__main__":
    unittest.main()
