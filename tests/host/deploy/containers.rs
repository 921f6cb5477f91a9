//! The containers' files: what they mount, and the very commands in them, run here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::deploy::{DEADLINE, example};
use crate::support::agent::Agent;
use crate::support::sender::{Sender, block_on};
use crate::support::server::MainServer;
use crate::support::temp_folder;

/// Where the SDK looks in the application's container.
const BASE: &str = "/app/.datanadhi/echopost";

/// The programs of the environment that checks the workflows: YAML is theirs, too.
static BIN: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = env!("CARGO_MANIFEST_DIR");
    // Another test's process may be making it, too.
    let guard = fs::File::create(concat!(env!("CARGO_TARGET_TMPDIR"), "/check.lock"));
    let guard = guard.expect("the lock file");
    guard.lock().expect("the lock");
    let mut venv = Command::new(format!("{root}/.github/scripts/venv"));
    let output = venv.arg("check").output().expect("the script");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout)
        .expect("a path")
        .trim()
        .into()
});

fn parse(name: &str) -> Value {
    let load = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.argv[1])))";
    let output = Command::new(BIN.join("python"))
        .args(["-c", load, &example(name)])
        .output()
        .expect("Python");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn strings(value: &Value) -> Vec<String> {
    let texts = value.as_array().expect("a list").iter();
    texts
        .map(|text| text.as_str().expect("text").to_owned())
        .collect()
}

/// Runs a sidecar's command line with the folder of this machine in it, has it take a
/// record and stop.
fn serves_and_stops(line: &[String], base: &Path) {
    let server = MainServer::new_down();
    let here = |word: &String| match word.as_str() {
        "/usr/local/bin/echopost" => Agent::executable().to_owned(),
        "http://data-nadhi-server:5000" => server.url(),
        word => word.replace(BASE, base.to_str().expect("UTF-8")),
    };
    let words: Vec<String> = line.iter().map(here).collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    let mut agent = Agent::from_command_line(command, base).spawn();
    let started = agent.wait_event("agent_started", DEADLINE);
    assert_eq!(started["standby"], true);
    let sender = Sender::reconnecting(&base.join("data-nadhi-agent.sock"));
    assert!(
        block_on(sender.send("1", &[], ""))
            .expect("an answer")
            .success
    );
    agent.signal(Signal::TERM);
    agent.expect_exit(0, DEADLINE);
}

fn assert_executable(base: &Path) {
    let found = fs::metadata(base.join("echopost")).expect("what the SDK looks for");
    assert!(found.is_file() && found.permissions().mode() & 0o111 == 0o111);
}

#[test]
fn compose_shares_the_sdks_folder_and_nothing_above_it() {
    let file = parse("compose.yaml");
    let (sidecar, application) = (&file["services"]["echopost"], &file["services"]["app"]);
    let mount = json!([format!("./echopost:{BASE}")]);
    for service in [sidecar, application] {
        assert_eq!(service["volumes"], mount);
        assert_eq!(service["user"], "1000:1000");
    }
    assert_eq!(sidecar["mem_limit"], "64m");
    let grace = sidecar["stop_grace_period"].as_str().expect("a time");
    let grace: u32 = grace.trim_end_matches('s').parse().expect("seconds");
    assert!(grace >= 3);

    // The folder is made as the comment says.
    let place = temp_folder();
    let text = example("compose.yaml");
    let steps = text.lines().filter_map(|line| line.strip_prefix("#   "));
    let mut steps: String = steps.map(|step| format!("{step}\n")).collect();
    steps = steps.replace("PATH/TO/THE/DOWNLOAD", Agent::executable());
    if !rustix::process::geteuid().is_root() {
        steps = steps.replace("-o 1000 -g 1000", "");
    }
    let mut shell = Command::new("sh");
    shell.args(["-ec", &steps]).current_dir(place.path());
    assert!(shell.status().expect("sh").success(), "{steps}");
    let base = place.path().join("echopost");
    assert_executable(&base);
    let mode = fs::metadata(&base)
        .expect("the folder")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);

    let line = [
        strings(&sidecar["entrypoint"]),
        strings(&sidecar["command"]),
    ]
    .concat();
    serves_and_stops(&line, &base);
}

#[test]
fn compose_has_nothing_against_its_file() {
    let path = format!(
        "{}/tests/examples/deploy/compose.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    let mut check = Command::new(BIN.join("check-jsonschema"));
    check.args(["--builtin-schema", "vendor.compose-spec", &path]);
    let output = check.output().expect("check-jsonschema");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[test]
fn kubernetes_puts_the_executable_where_the_sdk_looks_and_mounts_nothing_above_it() {
    let file = parse("kubernetes.yaml");
    let pod = &file["spec"]["template"]["spec"];
    let claim = &file["spec"]["volumeClaimTemplates"][0]["metadata"]["name"];
    let containers = |kind: &str| pod[kind].as_array().expect("containers").clone();
    let mount = json!([{"name": claim, "mountPath": BASE}]);
    for container in [containers("initContainers"), containers("containers")].concat() {
        assert_eq!(container["volumeMounts"], mount, "{}", container["name"]);
        // All as the pod's user.
        assert!(container["securityContext"]["runAsUser"].is_null());
    }
    assert!(pod["securityContext"]["runAsUser"].is_u64());
    assert!(pod["volumes"].is_null(), "nothing that goes with the pod");
    assert!(pod["terminationGracePeriodSeconds"].as_u64() >= Some(3));

    let steps = containers("initContainers");
    let [copy, sidecar] = steps.as_slice() else {
        panic!("{} initContainers", steps.len());
    };
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(sidecar["resources"]["limits"]["memory"], "64Mi");

    // At each start of a pod: with the file there, too.
    let base = temp_folder();
    for _ in 0..2 {
        let words = strings(&copy["command"]);
        let here = |word: &String| match word.as_str() {
            "/usr/local/bin/echopost" => Agent::executable().to_owned(),
            word => word.replace(BASE, base.path().to_str().expect("UTF-8")),
        };
        let mut command = Command::new(&words[0]);
        let copied = command.args(words[1..].iter().map(here)).status();
        assert!(copied.expect("its command").success());
        assert_executable(base.path());
    }
    let line = [strings(&sidecar["command"]), strings(&sidecar["args"])].concat();
    serves_and_stops(&line, base.path());
}
