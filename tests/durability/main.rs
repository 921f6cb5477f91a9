//! Disks (spec 4): power cuts, failed flushes, full file systems, small hosts.

mod disk_failing;
mod disk_full;
#[allow(dead_code)] // each area uses a part
#[path = "small_hosts/group.rs"]
mod group;
mod power_cut;
#[allow(dead_code)] // each area uses a part
#[path = "disk_full/small.rs"]
mod small;
mod small_hosts;
#[path = "../support/mod.rs"]
mod support;
