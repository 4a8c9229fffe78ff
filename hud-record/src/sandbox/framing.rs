//! Messages on the socket between the recorder and the sandboxed child.
//!
//! A message is its length (4 bytes, little endian) and that number of bytes of postcard. Descriptors travel with the
//! length.

use std::{
    cmp::Ordering,
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Serialize, de::DeserializeOwned};

/// Largest message (bytes). The largest are unwind tables.
const LONGEST: u32 = 64 << 20;

/// Descriptors that one message may carry.
pub(crate) const MOST_FILES: usize = 4;

/// Sends a message with descriptors.
pub(crate) fn send(socket: &UnixStream, message: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = postcard::to_allocvec(message).map_err(invalid)?;
    let length = u32::try_from(body.len()).ok().filter(|&l| l <= LONGEST).ok_or_else(|| invalid("too long"))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(invalid("too many files"));
    }
    let length = length.to_le_bytes();
    // Four bytes are sent completely or not at all.
    rustix::net::sendmsg(socket.as_fd(), &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    (&mut &*socket).write_all(&body)
}

/// Receives a message with its descriptors; `None` once the other side has closed the socket.
pub(crate) fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [IoSliceMut::new(&mut length)];
    let got = loop {
        match rustix::net::recvmsg(socket.as_fd(), &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?.bytes,
        }
    };
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    if got == 0 {
        return Ok(None);
    }
    socket.read_exact(length.get_mut(got..).unwrap_or_default())?;
    let length = checked(length)?;
    // Memory is allocated as bytes arrive, not by the announced length.
    let mut body = Vec::new();
    socket.take(length.into()).read_to_end(&mut body)?;
    if u32::try_from(body.len()).ok() != Some(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((postcard::from_bytes(&body).map_err(invalid)?, files)))
}

/// Decodes the message in `bytes`, once it is complete.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<Option<T>> {
    let Some((length, body)) = bytes.split_first_chunk() else { return Ok(None) };
    let length = usize::try_from(checked(*length)?).map_err(invalid)?;
    match body.len().cmp(&length) {
        Ordering::Less => Ok(None),
        Ordering::Equal => postcard::from_bytes(body).map(Some).map_err(invalid),
        // The child sends nothing unasked.
        Ordering::Greater => Err(invalid("more than a message")),
    }
}

fn checked(length: [u8; 4]) -> io::Result<u32> {
    let length = u32::from_le_bytes(length);
    if length > LONGEST { Err(invalid("a message that is too long")) } else { Ok(length) }
}

fn invalid(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        sandbox::protocol::{Answer, Request},
        symbols::Role,
    };

    #[test]
    fn passes_messages_and_descriptors() {
        let (one, other) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/proc/self/status").unwrap();
        send(&one, &Request::Give { module: 7, role: Role::Object(9) }, &[file.as_fd()]).unwrap();
        send(&one, &Request::Frames { module: 7, offsets: vec![1, u64::MAX] }, &[]).unwrap();
        let (request, files) = receive::<Request>(&other).unwrap().unwrap();
        assert!(matches!(request, Request::Give { module: 7, role: Role::Object(9) }));
        let mut text = String::new();
        std::fs::File::from(files.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("Name:"));
        let (request, files) = receive::<Request>(&other).unwrap().unwrap();
        assert!(matches!(request, Request::Frames { offsets, .. } if offsets == [1, u64::MAX]));
        assert!(files.is_empty());
        drop(one);
        assert!(receive::<Request>(&other).unwrap().is_none());
    }

    #[test]
    fn rejects_invalid_messages() {
        for bytes in [&[0xff; 8][..], &[8, 0, 0, 0, 1, 2], &[3, 0, 0, 0, 0xff, 0xff, 0xff], &[1, 0]] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(bytes).unwrap();
            drop(one);
            assert!(receive::<Answer>(&other).is_err(), "{bytes:?}");
            assert!(!matches!(decode::<Answer>(bytes), Ok(Some(_))), "{bytes:?}");
        }
    }
}
