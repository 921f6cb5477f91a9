//! The store (spec 4): what is on disk after kills, and what becomes of a damaged one.

mod damage;
mod durable_kills;
mod durable_order;
mod durable_store;
#[allow(dead_code)] // each area uses a part
#[path = "../durability/small_hosts/group.rs"]
mod group;
mod salvage;
#[allow(dead_code)] // each area uses a part
#[path = "../durability/disk_full/small.rs"]
mod small;
#[path = "../support/mod.rs"]
mod support;
