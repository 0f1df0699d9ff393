use super::*;

#[test]
fn where_a_message_is() {
    let place = |count, sequence, pending| Some(Place { count, sequence, pending });
    let check = |subject, expected| assert_eq!(Place::of(subject), expected, "{subject}");
    check("$JS.ACK.T.C.2.33.4.1795573552338510293.5", place(2, 33, 5));
    check("$JS.ACK.hub.ACCHASH.T.C.2.33.4.1795573552338510293.5", place(2, 33, 5));
    check("$JS.ACK._.ACCHASH.T.C.2.33.4.1795573552338510293.5.token", place(2, 33, 5));
    for wrong in ["", "$JS.ACK", "$JS.ACK.T.C.x.1.1.1.1", "$JS.ACK.T.C.1.1", "_INBOX.a.b.c.d.e.f.g.h.i"] {
        check(wrong, None);
    }
}

#[test]
fn answers() {
    let ack: PubAck<'_> = read(br#"{"stream":"S","seq":7,"duplicate":true}"#).unwrap();
    assert_eq!((ack.stream.as_ref(), ack.seq), ("S", 7));
    let ack: PubAck<'_> =
        read(br#"{"error":{"code":503,"err_code":10077,"description":"full"},"stream":"S","seq":0}"#).unwrap();
    assert_eq!(ack.error.unwrap().err_code, 10077);
    let names: Reply<StreamNames> = read(br#"{"type":"t","total":0,"streams":null}"#).unwrap();
    assert!(names.error.is_none() && names.answer.unwrap().streams.is_none());
    let found: Reply<ConsumerInfo> =
        read(br#"{"type":"t","stream_name":"S","name":"C","config":{"durable_name":"C","ack_wait":2000000000,"num_replicas":0,"filter_subject":"a"},"num_pending":3}"#)
            .unwrap();
    let info = found.answer.unwrap();
    assert_eq!((info.config.ack_wait, info.num_pending, info.config.deliver_subject), (Some(2_000_000_000), 3, None));
    let error: Reply<ConsumerInfo> = read(br#"{"error":{"code":404,"err_code":10014,"description":"no"}}"#).unwrap();
    assert_eq!(error.error.unwrap().err_code, 10014);
}
