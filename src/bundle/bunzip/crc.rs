//! The format's checksum: CRC-32 with the highest bit first.

const POLYNOMIAL: u32 = 0x04c1_1db7;

/// What a byte does to the checksum, with so many zero bytes behind it.
const TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            let carry = crc >> 31;
            crc = (crc << 1) ^ (carry * POLYNOMIAL);
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut behind = 1;
    while behind < 8 {
        byte = 0;
        while byte < 256 {
            let crc = tables[behind - 1][byte];
            tables[behind][byte] = (crc << 8) ^ tables[0][(crc >> 24) as usize];
            byte += 1;
        }
        behind += 1;
    }
    tables
};

/// Goes on with a checksum, which begins and ends inverted.
pub(super) fn crc(mut crc: u32, bytes: &[u8]) -> u32 {
    // Eight bytes at a time, so that eight looks into a table do not wait for each other.
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let mut eight = *eight;
        for (byte, sum) in eight.iter_mut().zip(crc.to_be_bytes()) {
            *byte ^= sum;
        }
        let last_first = eight.iter().rev().zip(&TABLES);
        crc = last_first.fold(0, |crc, (byte, table)| crc ^ table[usize::from(*byte)]);
    }
    for byte in rest {
        crc = (crc << 8) ^ TABLES[0][usize::from((crc >> 24) as u8 ^ byte)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_and_every_cut() {
        // The check value of CRC-32/BZIP2 in the catalogue of parametrised CRC algorithms.
        assert_eq!(!crc(!0, b"123456789"), 0xfc89_1918);
        let bytes: Vec<u8> = (0..100).map(|n| (n * n % 251) as u8).collect();
        let one_by_one = bytes.iter().fold(!0, |sum, byte| crc(sum, &[*byte]));
        for cut in 0..100 {
            assert_eq!(
                crc(crc(!0, &bytes[..cut]), &bytes[cut..]),
                one_by_one,
                "{cut}"
            );
        }
    }
}
