"""The rules that the workflows keep and that no linter knows: checked on the files."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import unittest
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github/workflows").glob("*"))}
PARSED = {name: yaml.safe_load(text) for name, text in WORKFLOWS.items()}
JOBS = [(f"{name}: {job}", data) for name, parsed in PARSED.items() for job, data in parsed["jobs"].items()]
STEPS = [(f"{where}, step {n}", step) for where, job in JOBS for n, step in enumerate(job.get("steps", []), 1)]

# All that any job may do beyond reading; a wider permission is a change of this table.
MAY = {
    "deploy-prod.yml: attest": {"id-token": "write", "attestations": "write"},
    "deploy-snapshot.yml: attest": {"id-token": "write", "attestations": "write"},
    "deploy-prod.yml: tag": {"contents": "write"},
}
ENVIRONMENTS = {
    "deploy-prod.yml: publish": "production",
    "deploy-snapshot.yml: publish": "snapshot",
}


class Workflows(unittest.TestCase):
    def test_the_workflows_are_these(self):
        names = {"build.yml", "ci.yml", "deploy-prod.yml", "deploy-snapshot.yml", "nightly.yml"}
        self.assertEqual(set(WORKFLOWS), names)

    def test_they_start_on_these_events(self):
        # YAML 1.1 reads the key `on` as true.
        self.assertEqual(list(PARSED["build.yml"][True]), ["workflow_call"])
        self.assertEqual(PARSED["ci.yml"][True], {"pull_request": None, "workflow_call": None})
        self.assertEqual(list(PARSED["nightly.yml"][True]), ["schedule", "workflow_dispatch"])
        self.assertEqual(PARSED["deploy-prod.yml"][True], {"push": {"branches": ["main"]}})
        self.assertEqual(list(PARSED["deploy-snapshot.yml"][True]), ["workflow_dispatch"])
        self.assertEqual(PARSED["deploy-snapshot.yml"][True]["workflow_dispatch"]["inputs"]["suffix"]["default"], "snapshot")

    def test_every_action_is_pinned_by_commit_with_its_version_beside(self):
        pins = {}
        for name, text in WORKFLOWS.items():
            for line in re.findall(r"uses:.*", text):
                if line in ("uses: ./.github/workflows/build.yml", "uses: ./.github/workflows/ci.yml"):
                    continue
                match = re.fullmatch(r"uses: ([\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line)
                self.assertIsNotNone(match, f"{name}: {line}")
                self.assertEqual(pins.setdefault(match[1], match[0]), match[0], "one action, one pin")
        self.assertGreaterEqual(len(pins), 4)

    def test_each_job_may_do_no_more_than_it_needs(self):
        for name, parsed in PARSED.items():
            self.assertEqual(parsed["permissions"], {}, name)
        for where, job in JOBS:
            with self.subTest(where=where):
                self.assertEqual(job["permissions"], MAY.get(where, {"contents": "read"}))

    def test_secrets_are_only_where_an_environment_guards_them(self):
        for where, job in JOBS:
            with self.subTest(where=where):
                self.assertEqual(job.get("environment"), ENVIRONMENTS.get(where))
                self.assertEqual("secrets." in str(job), where in ENVIRONMENTS)

    def test_each_job_has_a_deadline(self):
        for where, job in JOBS:
            with self.subTest(where=where):
                self.assertTrue("timeout-minutes" in job or job["uses"].startswith("./"))

    def test_publishing_is_never_cancelled_half_way(self):
        for guarded in (PARSED["deploy-prod.yml"]["jobs"]["publish"], PARSED["deploy-snapshot.yml"]):
            self.assertIs(guarded["concurrency"]["cancel-in-progress"], False)
        self.assertIn("pull_request", PARSED["ci.yml"]["concurrency"]["cancel-in-progress"])

    def test_no_checkout_leaves_a_token_behind(self):
        for where, step in STEPS:
            with self.subTest(where=where):
                if step.get("uses", "").startswith("actions/checkout@"):
                    self.assertIs(step["with"]["persist-credentials"], False)

    def test_no_expression_stands_in_a_script(self):
        for where, step in STEPS:
            with self.subTest(where=where):
                self.assertNotIn("${{", step.get("run", ""))

    def test_scripts_pass_shellcheck(self):
        shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        self.assertIsNotNone(shellcheck, "install shellcheck")
        for where, step in STEPS:
            with self.subTest(where=where):
                if "run" in step:
                    done = subprocess.run(
                        [shellcheck, "--shell=bash", "-"], input=step["run"], capture_output=True, text=True, check=False
                    )
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_what_a_job_reads_of_another_is_there(self):
        for name, parsed in PARSED.items():
            for job_name, job in parsed["jobs"].items():
                needs = job.get("needs", [])
                needs = [needs] if isinstance(needs, str) else needs
                for other in needs:
                    self.assertIn(other, parsed["jobs"])
                for other, output in re.findall(r"needs\.([\w-]+)\.outputs\.([\w-]+)", str(job)):
                    self.assertIn(other, needs, f"{name}: {job_name}")
                    self.assertIn(output, parsed["jobs"][other]["outputs"], f"{name}: {job_name}")
                steps = {step.get("id") for step in job.get("steps", [])}
                for step in re.findall(r"steps\.([\w-]+)\.", str(job)):
                    self.assertIn(step, steps, f"{name}: {job_name}")

    def test_scripts_that_are_named_exist(self):
        for name, text in WORKFLOWS.items():
            for script in re.findall(r"\.(?:github/scripts|ci)/[\w.]+", text):
                self.assertTrue((ROOT / script).is_file(), f"{name}: {script}")

    def test_nothing_is_published_that_was_not_built_tried_checked_and_attested(self):
        production, snapshot = PARSED["deploy-prod.yml"]["jobs"], PARSED["deploy-snapshot.yml"]["jobs"]
        needs = {name: job.get("needs") for name, job in production.items()}
        self.assertEqual(
            needs, {"ci": None, "check": None, "attest": ["ci", "check"], "publish": "attest", "tag": "publish"}
        )
        self.assertEqual(production["ci"]["uses"], "./.github/workflows/ci.yml")
        needs = {name: job.get("needs") for name, job in snapshot.items()}
        self.assertEqual(needs, {"check": None, "build": "check", "attest": "build", "publish": "attest"})
        # A condition without !cancelled(), failure() and always() holds only after success; and so on down the needs.
        conditions = {where: job["if"] for where, job in JOBS if "if" in job}
        self.assertEqual(conditions, {"deploy-prod.yml: attest": "needs.check.outputs.publish == 'true'"})
        # One build in a run: what was tried is what is published, and no other has the artifacts' names.
        builds = [where for where, job in JOBS if "build.yml" in job.get("uses", "")]
        self.assertEqual(builds, ["ci.yml: build", "deploy-snapshot.yml: build"])
        self.assertFalse([where for where, job in JOBS if "continue-on-error" in str(job)])
        steps = [step.get("run", step.get("uses", "")) for step in PARSED["build.yml"]["jobs"]["binary"]["steps"]]
        order = [next(n for n, step in enumerate(steps) if part in step) for part in ("/build ", "smoke.py", "upload")]
        self.assertEqual(order, sorted(order))
        self.assertFalse([where for where, step in STEPS if where.startswith("ci.yml") and "upload-artifact" in str(step)])

    def test_every_fuzz_target_runs_at_night(self):
        targets = tomllib.loads((ROOT / "tests/fuzz/Cargo.toml").read_text())["bin"]
        matrix = PARSED["nightly.yml"]["jobs"]["fuzz"]["strategy"]["matrix"]["target"]
        self.assertEqual(matrix, [target["name"] for target in targets])

    def test_what_publishes_is_what_is_tested(self):
        check, publish = ((ROOT / f".github/scripts/{name}.txt").read_text() for name in ("check", "publish"))
        for package in re.findall(r"(?m)^\S+==\S+", publish):
            self.assertIn(f"{package} ", check)

    def test_the_four_platforms_are_built_and_described(self):
        sys.path.insert(0, str(Path(__file__).parent))
        from publish import PLATFORMS

        jobs = PARSED["build.yml"]["jobs"]
        built = {(row["platform"], row["target"]) for row in jobs["binary"]["strategy"]["matrix"]["include"]}
        described = {
            (platform, target) for target, platform in re.findall(r"sbom (\S+) dist/(\S+)", str(jobs["sbom"]).replace("\\n", "\n"))
        }
        self.assertEqual({platform for platform, _ in built}, {name.replace("/", "-") for name in PLATFORMS})
        self.assertEqual(described, built)


if __name__ == "__main__":
    unittest.main()
