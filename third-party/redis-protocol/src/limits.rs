//! Bounds on what one frame may announce.
//!
//! The decoders recurse into nested frames, and keep an unfinished frame in the caller's buffer until it is complete.
//! A peer that answers with 800 KB of `*1\r\n` therefore overflows the stack, and one that announces `$2147483647`
//! makes the caller buffer 2 GiB. So [first_frame] walks over the frame first: without recursion, without
//! allocations, and without looking at the contents of blobs.

use crate::{
  error::{RedisProtocolError, RedisProtocolErrorKind},
  types::CRLF,
};
use alloc::format;
use core::str;

/// The largest number of frames around a frame.
pub const MAX_DEPTH: usize = 32;
/// The largest number of bytes in one frame, with all frames inside of it.
pub const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;
/// The largest number of frames in one frame, at all levels together.
pub const MAX_FRAMES: usize = 64 * 1024;
/// The largest number of bytes in a line: a simple string, a simple error, a number or a length.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// What [first_frame] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Extent {
  /// The frame is within the limits and ends in the buffer, or the decoder finds an error in it.
  Decodable,
  /// The frame is within the limits so far and does not end in the buffer.
  Incomplete,
}

/// The part of a frame that a type byte begins.
enum Part {
  /// A frame without a length.
  Line,
  /// A frame with as many bytes as its line says.
  Blob,
  /// A frame with this many other frames for each one that its line counts, and this many besides.
  Aggregate { each: usize, besides: usize },
}

impl Part {
  fn from_byte(byte: u8) -> Option<Self> {
    match byte {
      b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' | b'.' | b'H' => Some(Part::Line),
      b'$' | b'!' | b'=' | b';' => Some(Part::Blob),
      b'*' | b'~' | b'>' => Some(Part::Aggregate { each: 1, besides: 0 }),
      b'%' => Some(Part::Aggregate { each: 2, besides: 0 }),
      // The frame that has the attributes follows them.
      b'|' => Some(Part::Aggregate { each: 2, besides: 1 }),
      _ => None,
    }
  }
}

/// Finds out whether the first frame of `buf` is complete and within the limits.
pub(crate) fn first_frame(buf: &[u8]) -> Result<Extent, RedisProtocolError> {
  // How many frames are still to come, at each level around the current one.
  let mut open = [0_usize; MAX_DEPTH];
  let (mut depth, mut frames, mut at) = (0, 1, 0);

  loop {
    let Some(byte) = buf.get(at) else { return incomplete(buf) };
    let Some(part) = Part::from_byte(*byte) else { return Ok(Extent::Decodable) };
    let Some(line) = line(&buf[at + 1 ..])? else { return incomplete(buf) };
    at += 1 + line.len() + CRLF.len();

    match part {
      Part::Line => {},
      Part::Blob => {
        // The end of a stream of chunks has no bytes after its line.
        let announced = length(line).filter(|len| *byte != b';' || *len > 0);
        if let Some(len) = announced {
          if len > MAX_FRAME_BYTES - at.min(MAX_FRAME_BYTES) {
            return exceeded("bytes in a frame", MAX_FRAME_BYTES);
          }
          at += len + CRLF.len();
          if at > buf.len() {
            return incomplete(buf);
          }
        }
      },
      Part::Aggregate { each, besides } => {
        let inner = length(line).map_or(0, |len| len.saturating_mul(each).saturating_add(besides));
        frames = inner.saturating_add(frames);
        if frames > MAX_FRAMES {
          return exceeded("frames in a frame", MAX_FRAMES);
        }
        if inner > 0 {
          if depth == MAX_DEPTH {
            return exceeded("levels of nested frames", MAX_DEPTH);
          }
          open[depth] = inner;
          depth += 1;
          continue;
        }
      },
    }
    // A frame has ended, and with it all frames of which it was the last.
    loop {
      if depth == 0 {
        return if at > MAX_FRAME_BYTES {
          exceeded("bytes in a frame", MAX_FRAME_BYTES)
        } else {
          Ok(Extent::Decodable)
        };
      }
      open[depth - 1] -= 1;
      if open[depth - 1] > 0 {
        break;
      }
      depth -= 1;
    }
  }
}

/// The bytes before the first CRLF; `None` if there is none yet.
fn line(buf: &[u8]) -> Result<Option<&[u8]>, RedisProtocolError> {
  let within = &buf[.. buf.len().min(MAX_LINE_BYTES + CRLF.len())];
  match within.windows(CRLF.len()).position(|bytes| bytes == CRLF.as_bytes()) {
    Some(len) => Ok(Some(&within[.. len])),
    None if buf.len() >= MAX_LINE_BYTES + CRLF.len() => exceeded("bytes in a line", MAX_LINE_BYTES),
    None => Ok(None),
  }
}

/// The length in a line. A null, the start of a stream, and what the decoder refuses have none.
fn length(line: &[u8]) -> Option<usize> {
  str::from_utf8(line).ok()?.parse().ok()
}

fn incomplete(buf: &[u8]) -> Result<Extent, RedisProtocolError> {
  if buf.len() > MAX_FRAME_BYTES {
    exceeded("bytes in a frame", MAX_FRAME_BYTES)
  } else {
    Ok(Extent::Incomplete)
  }
}

fn exceeded<T>(what: &str, limit: usize) -> Result<T, RedisProtocolError> {
  Err(RedisProtocolError::new(
    RedisProtocolErrorKind::DecodeError,
    format!("more than {} {}", limit, what),
  ))
}

#[cfg(test)]
mod tests {
  use super::*;
  use alloc::{string::String, vec::Vec};

  fn found(text: &str) -> Result<Extent, String> {
    first_frame(text.as_bytes()).map_err(|e| e.details().into())
  }

  #[test]
  fn should_find_the_end_of_each_kind_of_frame() {
    for frame in [
      "+OK\r\n", "-ERR no\r\n", ":1\r\n", "_\r\n", ",1.5\r\n", "#t\r\n", "(12\r\n", ".\r\n", "HELLO 3\r\n", "$3\r\na\r\n\r\n",
      "$0\r\n\r\n", "$-1\r\n", "$?\r\n", "!2\r\nno\r\n", "=5\r\ntxt:a\r\n", ";1\r\na\r\n", ";0\r\n", "*0\r\n", "*-1\r\n", "*?\r\n",
      "*2\r\n*1\r\n:1\r\n*0\r\n", "~1\r\n:1\r\n", ">2\r\n+a\r\n$1\r\nb\r\n", "%1\r\n+a\r\n*1\r\n:1\r\n", "|1\r\n+a\r\n:1\r\n*1\r\n:2\r\n",
    ] {
      assert_eq!(found(frame), Ok(Extent::Decodable), "{}", frame);
      for len in 0 .. frame.len() {
        assert_eq!(found(&frame[.. len]), Ok(Extent::Incomplete), "{} of {}", len, frame);
      }
    }
  }

  #[test]
  fn should_leave_errors_to_the_decoder() {
    for frame in ["?", "a\r\n", "*x\r\n", "*1\r\n?"] {
      assert_eq!(found(frame), Ok(Extent::Decodable), "{}", frame);
    }
  }

  #[test]
  fn should_refuse_what_exceeds_a_limit() {
    let nested = |byte: &str, depth: usize| byte.repeat(depth) + ":1\r\n";
    for byte in ["*1\r\n", "~1\r\n", ">1\r\n", "%1\r\n+a\r\n", "|0\r\n", "|1\r\n+a\r\n"] {
      let err = found(&nested(byte, 200_000));
      assert_eq!(err, Err("more than 32 levels of nested frames".into()), "{}", byte);
    }
    assert_eq!(found(&nested("*1\r\n", MAX_DEPTH)), Ok(Extent::Decodable));

    for announced in ["$2147483647", "!2147483647", "=2147483647", ";2147483647", "$18446744073709551615"] {
      let err = found(&(String::from(announced) + "\r\n"));
      assert_eq!(err, Err("more than 67108864 bytes in a frame".into()), "{}", announced);
    }
    for announced in ["*2147483647", "~2147483647", ">2147483647", "%2147483647", "|18446744073709551615", "*1\r\n*65536"] {
      let err = found(&(String::from(announced) + "\r\n"));
      assert_eq!(err, Err("more than 65536 frames in a frame".into()), "{}", announced);
    }
    let line = String::from("+") + &"x".repeat(MAX_LINE_BYTES);
    assert_eq!(found(&line), Ok(Extent::Incomplete));
    assert_eq!(found(&(line.clone() + "\r\n")), Ok(Extent::Decodable));
    assert_eq!(found(&(line + "xx")), Err("more than 65536 bytes in a line".into()));
  }

  #[test]
  fn should_count_the_bytes_of_all_frames_together() {
    let blob = [&b"$33554432\r\n"[..], &[b'x'; 33_554_432], b"\r\n"].concat();
    let two: Vec<u8> = [b"*2\r\n", &blob[..], &blob[..]].concat();
    let err = first_frame(&two).expect_err("too large");
    assert_eq!(err.details(), "more than 67108864 bytes in a frame");
  }
}
