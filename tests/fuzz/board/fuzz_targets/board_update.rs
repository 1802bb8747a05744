//! Whatever a sender says, what the board has confirmed stays as it is, and what it will try is genuine.
#![no_main]

use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use modelseal_firmware::slots::verify;
use modelseal_firmware::state::{Choice, State, StateStore};
use modelseal_firmware::update::serve;
use modelseal_firmware::update::wire::{Link, Request};
use modelseal_fuzz_board::places::Places;
use modelseal_fuzz_board::scene::{FLOOR, Wrap, models};
use modelseal_fuzz_board::{Board, board};

/// Reads what a sender has said, and ends. What is answered goes nowhere.
struct Line {
    said: Vec<u8>,
    at: usize,
}

impl embedded_io::ErrorType for Line {
    type Error = Infallible;
}

impl embedded_io::Read for Line {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let Some(byte) = self.said.get(self.at) else { return Ok(0) };
        (bytes[0], self.at) = (*byte, self.at + 1);
        Ok(1)
    }
}

impl embedded_io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Frames what `send` makes.
struct Framed<'l>(&'l mut Vec<u8>);

impl embedded_io::ErrorType for Framed<'_> {
    type Error = Infallible;
}

impl embedded_io::Read for Framed<'_> {
    fn read(&mut self, _: &mut [u8]) -> Result<usize, Infallible> {
        Ok(0)
    }
}

impl embedded_io::Write for Framed<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let genuine = &models()[0];
    let mut places = Places::new();
    places.put(&genuine.sealed, &genuine.grants[Wrap::DeviceKey as usize]);
    let mut device: Board = board(Wrap::DeviceKey);
    let confirmed = State { floor: FLOOR, confirmed: Some(Choice::FIRST), trial: None };
    device.stored.store(confirmed).unwrap();
    let before = places.clone();

    // Requests, then noise.
    let (mut said, mut rest) = (Vec::new(), bytes);
    while let Ok((request, after)) = postcard::take_from_bytes::<Request<'_>>(rest) {
        if matches!(request, Request::Piece { bytes, .. } if bytes.len() > 256) {
            break;
        }
        Link::new(Framed(&mut said)).send(0, &request).unwrap_or_else(|_| unreachable!());
        rest = after;
    }
    said.extend(rest);
    let served = serve(&mut device, &mut places, Line { said, at: 0 });

    assert!(places.images[0] == before.images[0] && places.deliveries[0] == before.deliveries[0]);
    let state = device.stored.load().unwrap();
    match state.trial {
        Some(trial) => {
            assert_eq!(State { trial: None, ..state }, confirmed);
            assert_eq!(verify(&mut device, &mut places, trial.choice).ok(), served.ok());
            let payload = |genuine: &&modelseal_fuzz_board::scene::Genuine| {
                let payload = genuine.parts.payload..genuine.sealed.len();
                places.images[trial.choice.image as usize][payload.clone()] == genuine.sealed[payload]
            };
            assert!(models().iter().any(|genuine| payload(&genuine)));
        }
        None => assert!(state == confirmed && served.is_err()),
    }
});
