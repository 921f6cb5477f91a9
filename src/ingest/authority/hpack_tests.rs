use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    digits
        .chunks(2)
        .map(|pair| digit(pair[0]) * 16 + digit(pair[1]))
        .collect()
}

/// The names of RFC 7541 appendix A.
const NAMES: &str = ":authority :method :method :path :path :scheme :scheme :status :status \
    :status :status :status :status :status accept-charset accept-encoding accept-language \
    accept-ranges accept access-control-allow-origin age allow authorization cache-control \
    content-disposition content-encoding content-language content-length content-location \
    content-range content-type cookie date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified link location \
    max-forwards proxy-authenticate proxy-authorization range referer refresh retry-after server \
    set-cookie strict-transport-security transfer-encoding user-agent vary via www-authenticate";

#[test]
fn the_static_names_are_those_of_the_rfc() {
    let lengths: Vec<usize> = NAMES.split_whitespace().map(str::len).collect();
    assert_eq!(lengths, STATIC_NAMES.map(usize::from));
}

#[test]
fn the_table_has_the_sizes_of_the_examples_in_the_rfc() {
    // RFC 7541 appendix C: blocks of one connection, and the table's size after
    // each; C.5 and C.6 begin with an update to 256 bytes.
    for (case, blocks) in [
        (
            "C.3",
            vec![
                ("828684410f7777772e6578616d706c652e636f6d", 57),
                ("828684be58086e6f2d6361636865", 110),
                (
                    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
                    164,
                ),
            ],
        ),
        (
            "C.4",
            vec![
                ("828684418cf1e3c2e5f23a6ba0ab90f4ff", 57),
                ("828684be5886a8eb10649cbf", 110),
                ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", 164),
            ],
        ),
        (
            "C.5",
            vec![
                (
                    "3fe101 4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032
                     303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
                    222,
                ),
                ("4803333037c1c0bf", 222),
                (
                    "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a
                     69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d
                     61782d6167653d333630303b2076657273696f6e3d31",
                    215,
                ),
            ],
        ),
        (
            "C.6",
            vec![
                (
                    "3fe101 488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1b
                     ff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
                    222,
                ),
                ("4883640effc1c0bf", 222),
                (
                    "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821d
                     d7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b106
                     3d5007",
                    215,
                ),
            ],
        ),
    ] {
        let mut walker = Walker::default();
        for (block, size) in blocks {
            let mut bytes = hex(block);
            assert_eq!(walker.rewrite(&mut bytes), Ok(()), "{case} {block}");
            assert_eq!(bytes, hex(block), "{case}: nothing to rewrite");
            assert_eq!(walker.size, size, "{case} {block}");
        }
    }
}

#[test]
fn refuses_what_the_rfc_refuses() {
    for (case, block) in [
        ("index 0", "80"),
        ("an index past the static table", "be"),
        ("a name past the static table", "7e00"),
        ("an index cut short", "ff"),
        ("an endless index", "ffffffffffff00"),
        ("a huge integer", "ffffffffff7f"),
        ("a literal without its name", "40"),
        ("a literal without its value", "4001 61"),
        ("a name longer than the block", "4005 61 00"),
        ("a value longer than the block", "4001 61 02 62"),
        ("a huge length", "4001 61 7fffffff7f"),
        ("EOS in an indexed value", "4001 61 84 ffffffff"),
        ("bad padding in an authority", "01 81 00"),
        ("a table larger than agreed", "3fe21f"),
    ] {
        let got = Walker::default().rewrite(&mut hex(block));
        assert_eq!(got, Err(Invalid), "{case}");
    }
    let mut walker = Walker::default();
    assert_eq!(
        walker.rewrite(&mut hex("3fe11f 4001610162 be")),
        Ok(()),
        "4096 bytes are fine"
    );
    assert_eq!(walker.rewrite(&mut hex("20 be")), Err(Invalid), "evicted");
}

#[test]
fn only_the_value_of_an_authority_changes() {
    for (case, block, expected) in [
        (
            "static name",
            b"\x41\x02/a".as_slice(),
            b"\x41\x02-a".as_slice(),
        ),
        ("without indexing", b"\x01\x02/a", b"\x01\x02-a"),
        ("never indexed", b"\x11\x02/a", b"\x11\x02-a"),
        (
            "literal name",
            b"\x00\x0a:authority\x02/a",
            b"\x00\x0a:authority\x02-a",
        ),
        (
            "another name",
            b"\x00\x0a:authoritx\x02/a",
            b"\x00\x0a:authoritx\x02/a",
        ),
        (
            "a shorter name",
            b"\x00\x09:authorit\x02/a",
            b"\x00\x09:authorit\x02/a",
        ),
        (
            "a longer name",
            b"\x00\x0b:authority2\x02/a",
            b"\x00\x0b:authority2\x02/a",
        ),
        ("a path", b"\x04\x02/a", b"\x04\x02/a"),
        (
            "two",
            b"\x01\x01/\x04\x02/a\x01\x02 /",
            b"\x01\x01-\x04\x02/a\x01\x02--",
        ),
    ] {
        let mut bytes = block.to_vec();
        assert_eq!(Walker::default().rewrite(&mut bytes), Ok(()), "{case}");
        assert_eq!(bytes, expected, "{case}");
    }
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut walker = Walker::default();
    // 34 bytes fit in 40; 44 do not.
    assert_eq!(
        walker.rewrite(b"\x3f\x09\x40\x01a\x01b".to_vec().as_mut_slice()),
        Ok(())
    );
    assert_eq!((walker.entries.len(), walker.size), (1, 34));
    assert_eq!(
        walker.rewrite(b"\x41\x02/a".to_vec().as_mut_slice()),
        Ok(())
    );
    assert_eq!((walker.entries.len(), walker.size), (0, 0));
}

#[test]
fn integers_may_take_four_further_bytes() {
    for length in ["7f00", "7f8000", "7f80808000"] {
        let mut block = [&[0x01][..], &hex(length)].concat();
        let value = block.len();
        block.extend([b'/'; 127]);
        assert_eq!(Walker::default().rewrite(&mut block), Ok(()), "{length}");
        assert!(block[value..].iter().all(|byte| *byte == b'-'), "{length}");
    }
    let mut block = [&hex("01 7f8080808000")[..], &[b'/'; 127]].concat();
    assert_eq!(Walker::default().rewrite(&mut block), Err(Invalid), "five");
}
