//! What a model is, guessed from its first bytes and its name.

use std::path::Path;

/// How many of the first bytes [`guess`] looks at.
pub const HEAD_LEN: usize = 16;

/// The kind of a Python object, which is code.
pub const PICKLE: &str = "pickle";

/// The kind of a model, for its manifest: by content where the format has a mark, else by ending, else
/// "bytes".
pub fn guess(head: &[u8], path: &Path) -> &'static str {
    by_content(head).or_else(|| by_ending(path)).unwrap_or("bytes")
}

fn by_content(head: &[u8]) -> Option<&'static str> {
    match head {
        [b'G', b'G', b'U', b'F', ..] => Some("gguf"),
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => Some("tflite"),
        // The length of a JSON object, which begins at once (or after alignment in front of it).
        [_, _, _, _, 0, 0, 0, 0, b'{', ..] => Some("safetensors"),
        [0x89, b'H', b'D', b'F', ..] => Some("hdf5"),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some("npy"),
        // Of protocol 2 to 5.
        [0x80, 2..=5, ..] => Some(PICKLE),
        [b'g', b'g', b'm', b'l', ..] | [b'l', b'm', b'g', b'g', ..] => Some("ggml"),
        _ => None,
    }
}

fn by_ending(path: &Path) -> Option<&'static str> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    let kinds = [
        ("onnx", "onnx"),
        ("tflite", "tflite"),
        ("safetensors", "safetensors"),
        ("gguf", "gguf"),
        ("pt", "torchscript"),
        ("jit", "torchscript"),
        ("ts", "torchscript"),
        ("pth", "pytorch"),
        ("bin", "bytes"),
        ("h5", "hdf5"),
        ("keras", "keras"),
        ("npz", "npz"),
        ("npy", "npy"),
        ("mlmodel", "coreml"),
        ("engine", "tensorrt"),
        ("plan", "tensorrt"),
        ("parquet", "parquet"),
        ("csv", "csv"),
        ("json", "json"),
    ];
    kinds.into_iter().find(|(known, _)| *known == ending).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_wins_over_the_ending() {
        assert_eq!(guess(b"\x1c\0\0\0TFL3\0\0", Path::new("model.onnx")), "tflite");
        assert_eq!(guess(b"\x40\x01\0\0\0\0\0\0{\"a", Path::new("model")), "safetensors");
        assert_eq!(guess(b"\x08\x07\x12", Path::new("model.ONNX")), "onnx");
        assert_eq!(guess(b"", Path::new("model")), "bytes");
    }
}
