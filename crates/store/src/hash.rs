//! How the values of a row are added to a hash: of a copy to compare it by, and of the history to seal it. What is sealed
//! stays on disk, so this never changes.

/// A value of a row, as it is added to a hash: two rows that differ never add the same bytes, nor do two values that
/// stand side by side and are parted elsewhere.
pub(crate) trait Value {
    fn add_to(&self, hash: &mut blake3::Hasher);
}

impl Value for [u8] {
    fn add_to(&self, hash: &mut blake3::Hasher) {
        hash.update(&(self.len() as u64).to_le_bytes());
        hash.update(self);
    }
}

impl Value for Vec<u8> {
    fn add_to(&self, hash: &mut blake3::Hasher) {
        self.as_slice().add_to(hash);
    }
}

impl Value for String {
    fn add_to(&self, hash: &mut blake3::Hasher) {
        self.as_bytes().add_to(hash);
    }
}

impl<T: Value> Value for Option<T> {
    fn add_to(&self, hash: &mut blake3::Hasher) {
        hash.update(&[u8::from(self.is_some())]);
        if let Some(value) = self {
            value.add_to(hash);
        }
    }
}

macro_rules! numbers {
    ($($type:ty),+) => {$(
        impl Value for $type {
            fn add_to(&self, hash: &mut blake3::Hasher) {
                // As the bytes of the number are added, in one piece.
                let mut bytes = [0; 16];
                bytes[0] = 8;
                bytes[8..].copy_from_slice(&i64::from(*self).to_le_bytes());
                hash.update(&bytes);
            }
        }
    )+};
}

numbers!(bool, i16, i32, i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_parted_elsewhere_hash_differently() {
        fn hash(values: &[&dyn Value]) -> blake3::Hash {
            let mut hash = blake3::Hasher::new();
            for value in values {
                value.add_to(&mut hash);
            }
            hash.finalize()
        }
        let text = |text: &str| text.to_owned();
        assert_ne!(hash(&[&text("ab"), &text("c")]), hash(&[&text("a"), &text("bc")]));
        assert_ne!(hash(&[&None::<i16>, &Some(1_i16)]), hash(&[&Some(1_i16), &None::<i16>]));
        assert_ne!(hash(&[&None::<Vec<u8>>]), hash(&[&Some(Vec::<u8>::new())]));
    }

    #[test]
    fn what_is_hashed_stays_as_it_is() {
        let mut hash = blake3::Hasher::new();
        1_i16.add_to(&mut hash);
        Some("a".to_owned()).add_to(&mut hash);
        None::<i64>.add_to(&mut hash);
        let mut plain = vec![8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        plain.extend([1, 1, 0, 0, 0, 0, 0, 0, 0, b'a', 0]);
        assert_eq!(hash.finalize(), blake3::hash(&plain));
    }
}
