"""What `tag` does with a tag that is there, or not: against a gh of a few lines."""

import os
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path

TAG = Path(__file__).parent / "tag"
COMMIT, OTHER_COMMIT = "a" * 40, "b" * 40

# Answers a look-up with the file `there`, if any, and notes what is created.
GH = """#!/bin/sh
case "$*" in
  "api repos/o/r/git/ref/tags/v1.3.0 --jq .object.sha") cat "$FAKE/there" ;;
  *"--method POST repos/o/r/git/refs"*) echo "$*" >>"$FAKE/created"; exit "$CREATE" ;;
  *) exit 99 ;;
esac
"""


class Tag(unittest.TestCase):
    def run_tag(self, there=None, create=0):
        """The finished process, and what was created."""
        with tempfile.TemporaryDirectory() as folder:
            gh = Path(folder) / "gh"
            gh.write_text(GH)
            gh.chmod(gh.stat().st_mode | stat.S_IXUSR)
            if there:
                (Path(folder) / "there").write_text(there)
            environment = {
                "PATH": f"{folder}:{os.environ['PATH']}",
                "FAKE": folder,
                "CREATE": str(create),
                "GITHUB_REPOSITORY": "o/r",
            }
            done = subprocess.run(
                [TAG, "v1.3.0", COMMIT], env=environment, capture_output=True, text=True, timeout=60, check=False
            )
            created = Path(folder) / "created"
            return done, created.read_text() if created.exists() else ""

    def test_a_new_tag_is_created_on_the_commit(self):
        done, created = self.run_tag()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"ref=refs/tags/v1.3.0 -f sha={COMMIT}", created)

    def test_a_tag_that_is_there_stays(self):
        done, created = self.run_tag(there=COMMIT)
        self.assertEqual((done.returncode, created), (0, ""), done.stderr)

    def test_a_tag_on_another_commit_is_an_error(self):
        done, created = self.run_tag(there=OTHER_COMMIT)
        self.assertEqual((done.returncode, created), (1, ""))
        self.assertIn(f"v1.3.0 is on {OTHER_COMMIT}", done.stderr)

    def test_a_tag_that_cannot_be_created_is_an_error(self):
        done, _ = self.run_tag(create=1)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"git push origin {COMMIT}:refs/tags/v1.3.0", done.stderr)
        self.assertNotIn("tagged", done.stdout)


if __name__ == "__main__":
    unittest.main()
