//! Keys at rest.

use std::os::unix::fs::PermissionsExt as _;

use store::{MASTER_KEY_FILE, MasterKey, Store, StoreOptions};

use crate::support::{Fixture, new_machine, refused, registration};

#[tokio::test]
async fn a_machines_key_lies_encrypted_and_comes_back() {
    let fixture = Fixture::new().await;
    let token = fixture.store.registration_create(registration()).await.unwrap();
    let (id, key) = fixture.store.machine_register(&token, new_machine(1)).await.unwrap();
    let connection = fixture.store.machine_connection(id).await.unwrap();
    assert_eq!(connection.shared_key, key);
    assert_eq!((connection.address.as_str(), connection.port), ("192.0.2.7", 9911));

    let (sealed, key_id): (Vec<u8>, String) =
        sqlx::query_as("SELECT shared_key_ciphertext, shared_key_key_id FROM machines")
            .fetch_one(&mut fixture.database.connect().await)
            .await
            .unwrap();
    assert_eq!(key_id, MasterKey::from_bytes([7; 32]).id());
    assert!(!sealed.windows(8).any(|window| key.as_bytes().windows(8).any(|part| part == window)));
}

#[tokio::test]
async fn another_master_key_is_refused_by_name() {
    let fixture = Fixture::new().await;
    let id = fixture.machine(1).await;
    let plain = Store::connect(fixture.database.url(), StoreOptions::default()).await.unwrap();
    let text = refused(plain.machine_connection(id).await, "configuration");
    assert!(text.contains("no master key"), "{text}");
    let (right, wrong) = (MasterKey::from_bytes([7; 32]), MasterKey::from_bytes([8; 32]));
    let other = plain.with_master_key(wrong.clone());
    let text = refused(other.machine_connection(id).await, "configuration");
    assert!(
        text.contains(right.id()) && text.contains(wrong.id()) && text.contains("HYTHE_MASTER_KEY"),
        "{text}"
    );
}

#[tokio::test]
async fn a_key_moved_to_another_machine_is_of_no_use() {
    let fixture = Fixture::new().await;
    let (one, other) = (fixture.machine(1).await, fixture.machine(2).await);
    sqlx::query("UPDATE machines SET shared_key_ciphertext = (SELECT shared_key_ciphertext FROM machines WHERE id = $1)")
        .bind(one.uuid())
        .execute(&mut fixture.database.connect().await)
        .await
        .unwrap();
    fixture.store.machine_connection(one).await.unwrap();
    let text = refused(fixture.store.machine_connection(other).await, "configuration");
    assert!(text.contains("damaged or another machine's"), "{text}");
}

#[test]
fn the_master_key_is_made_once_for_all_who_ask() {
    let folder = tempfile::tempdir().unwrap();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| MasterKey::load_or_create(folder.path()).unwrap().id().to_owned()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(ids[0].len(), 8);
    let files: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(files, [MASTER_KEY_FILE]);
    let path = folder.path().join(MASTER_KEY_FILE);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = MasterKey::load_or_create(folder.path()).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, "short").unwrap();
    let error = MasterKey::load_or_create(folder.path()).unwrap_err().to_string();
    assert!(error.contains("base64 of 32 bytes"), "{error}");
}

#[test]
fn keys_are_never_printed() {
    let text = format!("{:?}", MasterKey::from_bytes([0x41; 32]));
    assert!(!text.contains("AAAA") && !text.contains("65") && !text.contains("4141"), "{text}");
}
