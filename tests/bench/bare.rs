//! The floor: an axum endpoint that reads the same body and answers 204.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;

pub fn serve() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let read = async |body: Bytes| {
            std::hint::black_box(body);
            StatusCode::NO_CONTENT
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("listening http={} ", listener.local_addr().unwrap());
        axum::serve(
            listener,
            Router::new().route("/v1.0/publish/bus/t", post(read)).route("/v1.0/publish/bulk/bus/t", post(read)),
        )
        .await
        .unwrap();
    });
}
