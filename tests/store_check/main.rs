//! The check and the salvage of a store, against real LMDB files.

mod damage;
mod healthy;
mod store;
mod truth;
