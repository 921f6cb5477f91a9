//! Folders in which a rename is not like another.

use std::path::Path;
use std::process::Command;

use crate::salvage::{Arrived, DAMAGED, DEADLINE, made, send, serve, try_send};
use crate::support::agent::{Agent, Builder, names_in};
use crate::support::server::MainServer;
use crate::support::{pages, temp_folder, wait};

const COUNT: u64 = 5000;

/// The agent on `base` in a mount namespace of its own, once `mount` has run in it.
fn behind(mount: &str, base: &Path) -> Builder {
    let mut command = Command::new("unshare");
    let script = format!("{mount} && exec \"$0\" \"$@\"");
    command.args(["--mount", "sh", "-c", &script, Agent::executable()]);
    Agent::from_command(command, base)
}

#[test]
#[ignore = "needs root: it mounts"]
fn a_damaged_store_on_a_mount_point_of_its_own_is_served() {
    let (base, volume) = (temp_folder(), temp_folder());
    made::filled(volume.path(), 0..COUNT, 100);
    pages::zero_root(volume.path());
    let store = volume.path().join("lmdb");
    let inside = base.path().join("lmdb");
    std::fs::create_dir(&inside).unwrap();
    let mount = format!("mount --bind {} {}", store.display(), inside.display());
    let mut server = MainServer::new_down();
    let arrived = Arrived::at(&server);
    let agent = behind(&mount, base.path()).health_url(&server.url());
    let agent = serve(agent.spawn(), &mut server, COUNT);
    assert!(arrived.numbers().into_iter().eq(0..=COUNT));
    assert_eq!(agent.events_named("store_corrupt")[0]["saved"], COUNT);
}

#[test]
#[ignore = "needs root: it mounts"]
fn a_damaged_store_in_an_image_layer_is_served() {
    let place = temp_folder();
    let lower = place.path().join("lower");
    std::fs::create_dir(&lower).unwrap();
    made::filled(&lower, 0..COUNT, 100);
    pages::zero_root(&lower);
    let before = std::fs::read(lower.join("lmdb/data.mdb")).unwrap();
    let (base, layers) = (place.path().join("base"), place.path().join("layers"));
    std::fs::create_dir(&base).unwrap();
    std::fs::create_dir(&layers).unwrap();
    // An overlay's upper layer cannot lie everywhere; in memory it can.
    let mount = format!(
        "cd {} && mount -t tmpfs tmpfs layers && mkdir -m 0700 layers/upper layers/work && \
         mount -t overlay overlay -o lowerdir=lower,upperdir=layers/upper,workdir=layers/work base",
        place.path().display()
    );
    let mut server = MainServer::new_down();
    let arrived = Arrived::at(&server);
    let mut agent = behind(&mount, &base).health_url(&server.url()).spawn();
    // Its socket is seen in its own namespace only.
    agent.wait_event("agent_started", DEADLINE);
    let inside = format!("/proc/{}/root{}", agent.pid(), base.display());
    let socket = Path::new(&inside).join("data-nadhi-agent.sock");
    let answer = wait::some(DEADLINE, || try_send(&socket, COUNT).ok());
    assert!(answer.is_some_and(|answer| answer.success));
    server.up();
    agent.expect_exit(0, DEADLINE);
    assert!(arrived.numbers().into_iter().eq(0..=COUNT));
    assert_eq!(agent.events_named("store_corrupt")[0]["saved"], COUNT);
    let after = std::fs::read(lower.join("lmdb/data.mdb")).unwrap();
    assert!(after == before);
}

#[test]
#[ignore = "needs root: it mounts"]
fn a_small_mount_of_the_stores_own_keeps_its_reserve() {
    let (base, place) = (temp_folder(), temp_folder());
    made::filled(place.path(), 0..COUNT, 1000);
    pages::zero_root(place.path());
    let (from, inside) = (place.path().join("lmdb"), base.path().join("lmdb"));
    std::fs::create_dir(&inside).unwrap();
    // Half of the store's length is left beside it and the reserve.
    let length = from.join("data.mdb").metadata().unwrap().len();
    let (whole, reserve) = (16 << 20, 4 << 20);
    let filler = whole - reserve - length - length / 2;
    let mount = format!(
        "mount -t tmpfs -o size={whole} tmpfs {inside} && chmod 0700 {inside} && \
         cp {from}/data.mdb {inside} && head -c {filler} /dev/zero > {inside}/filler",
        inside = inside.display(),
        from = from.display()
    );
    let mut server = MainServer::new_down();
    let arrived = Arrived::at(&server);
    let agent = behind(&mount, base.path()).health_url(&server.url());
    let mut agent = agent.spawn();
    agent.wait_answering();
    let seen = format!("/proc/{}/root{}", agent.pid(), inside.display());
    let (mut least, mut is_over) = (u64::MAX, false);
    wait::until(DEADLINE, "the end of the scan", || {
        let stat = rustix::fs::statvfs(seen.as_str()).expect("statvfs");
        least = least.min(stat.f_bavail * stat.f_frsize);
        is_over = names_in(Path::new(&seen))
            .iter()
            .any(|name| name.starts_with(DAMAGED));
        is_over
    });
    send(&agent, COUNT);
    server.up();
    agent.expect_exit(0, DEADLINE);
    assert!(arrived.numbers().into_iter().eq(0..=COUNT));
    assert!(least >= reserve, "{least} < {reserve}");
}
