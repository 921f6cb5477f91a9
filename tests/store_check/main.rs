//! The check and the salvage of a store, against real LMDB files.

mod cases;
mod damage;
mod healthy;
mod store;
mod truth;
