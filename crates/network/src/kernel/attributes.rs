//! Netlink attributes, for the messages that no library of ours encodes.

const HEADER: usize = 4;
const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;

/// The next multiple of four: where a message or attribute may begin.
pub fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// One attribute.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = HEADER + value.len();
    let mut bytes = Vec::with_capacity(align(length));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(align(length), 0);
    bytes
}

/// An attribute of attributes.
pub fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &parts.concat())
}

/// A text attribute, with the zero byte that ends it.
pub fn string(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// The attributes in these bytes; what is cut off is left out.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & KIND_MASK;
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A text attribute's value.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_a_cut_off_end_is_left_out() {
        let inner = [string(1, "abc"), attribute(2, &[7])];
        let bytes = [attribute(9, &[1, 2, 3]), nested(4, &inner)].concat();
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found[0], (9, &[1, 2, 3][..]));
        assert_eq!(found[1].0, 4);
        let inner: Vec<_> = attributes(found[1].1).collect();
        assert_eq!((text(inner[0].1), inner[1]), ("abc".to_owned(), (2, &[7][..])));
        assert_eq!(attributes(&bytes[..bytes.len() - 5]).count(), 1);
        assert_eq!(attributes(&[1, 0]).count(), 0);
    }
}
