//! ingest

pub mod authority;
pub mod frames;
pub mod hpack;
pub mod huffman;
