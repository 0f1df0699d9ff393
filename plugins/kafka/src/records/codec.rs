//! Compression of record batches, in Rust throughout: no C code in a component.

use std::io::{Read, Write};

use bytes::{Buf, Bytes};

use crate::config::Codec;

/// The most bytes one batch may unpack to: what a component's memory has room for.
const UNPACKED_MAX_BYTES: usize = 32 << 20;

/// Snappy batches are a stream of blocks of this size, framed as Kafka's own clients do it.
const SNAPPY_BLOCK_BYTES: usize = 32 << 10;
const SNAPPY_MAGIC: &[u8] = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";

/// As a batch's attributes number it.
pub(super) fn number(codec: Codec) -> i16 {
    match codec {
        Codec::None => 0,
        Codec::Gzip => 1,
        Codec::Snappy => 2,
        Codec::Lz4 => 3,
        Codec::Zstd => 4,
    }
}

/// Compresses the records of a batch.
pub(super) fn compress(codec: Codec, plain: &[u8]) -> Result<Vec<u8>, String> {
    let written = match codec {
        Codec::None => Ok(plain.to_vec()),
        Codec::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(plain).and_then(|()| writer.finish())
        }
        Codec::Snappy => pack_snappy(plain).map_err(std::io::Error::other),
        Codec::Lz4 => {
            let mut writer = lz4_flex::frame::FrameEncoder::new(Vec::new());
            writer.write_all(plain).and_then(|()| writer.finish().map_err(std::io::Error::other))
        }
        Codec::Zstd => Ok(ruzstd::encoding::compress_to_vec(plain, ruzstd::encoding::CompressionLevel::Fastest)),
    };
    written.map_err(|error| format!("not to be compressed: {error}"))
}

/// Unpacks the records of a batch.
///
/// # Errors
/// The codec is not known, or the bytes are not what it makes, or they are too many.
pub(super) fn decompress(number: i16, packed: Bytes) -> Result<Bytes, String> {
    match number {
        0 => Ok(packed),
        1 => drain("gzip", flate2::read::GzDecoder::new(packed.reader())),
        2 => unpack_snappy(&packed).map(Bytes::from),
        3 => drain("lz4", lz4_flex::frame::FrameDecoder::new(packed.reader())),
        4 => {
            let reader = ruzstd::decoding::StreamingDecoder::new(packed.reader());
            drain("zstd", reader.map_err(|error| format!("not zstd: {error}"))?)
        }
        other => Err(format!("compression number {other} is not known")),
    }
}

fn drain(name: &str, reader: impl Read) -> Result<Bytes, String> {
    let mut plain = Vec::new();
    let limit = u64::try_from(UNPACKED_MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(limit).read_to_end(&mut plain).map_err(|error| format!("not {name}: {error}"))?;
    if plain.len() > UNPACKED_MAX_BYTES { Err(too_large()) } else { Ok(plain.into()) }
}

fn too_large() -> String {
    format!("a batch unpacks to more than {UNPACKED_MAX_BYTES} bytes")
}

fn pack_snappy(plain: &[u8]) -> Result<Vec<u8>, snap::Error> {
    let mut encoder = snap::raw::Encoder::new();
    let mut out = SNAPPY_MAGIC.to_vec();
    for block in plain.chunks(SNAPPY_BLOCK_BYTES) {
        let packed = encoder.compress_vec(block)?;
        out.extend_from_slice(&u32::try_from(packed.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Ok(out)
}

/// Some clients write one bare block.
fn unpack_snappy(packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    match packed.strip_prefix(SNAPPY_MAGIC) {
        None => unpack_snappy_block(packed, &mut plain)?,
        Some(mut rest) => {
            while !rest.is_empty() {
                let (length, tail) = rest.split_first_chunk().ok_or("snappy: cut off")?;
                let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                let (block, tail) = tail.split_at_checked(length).ok_or("snappy: cut off")?;
                unpack_snappy_block(block, &mut plain)?;
                rest = tail;
            }
        }
    }
    Ok(plain)
}

fn unpack_snappy_block(block: &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
    let broken = |error| format!("not snappy: {error}");
    let length = snap::raw::decompress_len(block).map_err(broken)?;
    let start = plain.len();
    let end = start.checked_add(length).filter(|end| *end <= UNPACKED_MAX_BYTES).ok_or_else(too_large)?;
    plain.resize(end, 0);
    let count = snap::raw::Decoder::new().decompress(block, &mut plain[start..]).map_err(broken)?;
    plain.truncate(start + count);
    Ok(())
}
