//! Frames out and in.

use std::collections::VecDeque;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// What was written comes back.
#[derive(Default)]
struct Loop(VecDeque<u8>);

impl embedded_io::ErrorType for Loop {
    type Error = Infallible;
}

impl Read for Loop {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let Some(byte) = self.0.pop_front() else { return Ok(0) };
        bytes[0] = byte;
        Ok(1)
    }
}

impl Write for Loop {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Bytes with few zeros, many, or none.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0), 1..=255u8];
    let rare = prop_oneof![200 => 1..=255u8, 1 => Just(0)];
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..=PIECE_MAX),
        proptest::collection::vec(byte, PIECE_MAX),
        proptest::collection::vec(rare, 240..=PIECE_MAX),
        proptest::collection::vec(1..=255u8, 240..=PIECE_MAX),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) })]

    #[test]
    fn every_piece_arrives(number: u8, offset: u32, bytes in bytes(), noise in bytes()) {
        let mut link = Link::new(Loop::default());
        let piece = Request::Piece { part: Part::Delivery, offset, bytes: &bytes };
        link.send(number, &piece).unwrap();
        // After noise, too, that ends with its frame.
        link.line.0.extend(noise.iter().chain(&[END]));
        link.send(number, &piece).unwrap();
        for _ in 0..2 {
            let (found, message) = link.receive().unwrap();
            prop_assert_eq!((found, postcard::from_bytes(message)), (number, Ok(piece)));
        }
        prop_assert_eq!(link.receive().err(), Some(Broken::Ended));
    }
}
