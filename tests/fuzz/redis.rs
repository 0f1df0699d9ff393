//! What a Redis server sends, and what is sent to it.

use whimbrel_redis::fuzz::{codec, commands};

use super::drive;

const REPLIES: [&[u8]; 8] = [
    b"\x00+OK\r\n:1\r\n-ERR no\r\n$-1\r\n*-1\r\n$0\r\n\r\n",
    b"\x03*1\r\n*2\r\n$6\r\norders\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*4\r\n$4\r\ndata\r\n$2\r\n{}\r\n$8\r\nmetadata\r\n$9\r\n{\"a\":\"b\"}\r\n",
    b"\x01*2\r\n*2\r\n$3\r\n1-0\r\n*-1\r\n*2\r\n$22\r\n18446744073709551615-18\r\n*0\r\n",
    b"\x07*1\r\n*4\r\n$3\r\n1-0\r\n$1\r\nc\r\n:1000\r\n:2\r\n",
    b"\x10*1\r\n*6\r\n$4\r\nname\r\n$1\r\nc\r\n$7\r\npending\r\n:0\r\n$4\r\nidle\r\n:-1\r\n",
    b"\xff*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
    b"\x02$99999999999999999999\r\n",
    b"\x05*1048576\r\n:1\r\n",
];

const WORDS: [&str; 12] =
    ["\r\n", "*1\r\n", "$1\r\nx\r\n", ":1\r\n", "*-1\r\n", "$-1\r\n", "-", "+", "\n", "9", "\0", "1-0"];

#[test]
fn what_a_server_sends() {
    drive(31, 30_000, &REPLIES, &WORDS, codec);
}

#[test]
fn what_is_sent_to_it() {
    let corpus: [&[u8]; 4] = [b"XADD\0orders\0*\0data\0{}", b"", b"\0\0", b"\xff\r\n$1"];
    drive(32, 30_000, &corpus, &WORDS, commands);
}
