//! `proto`: the contract, as the program hands it out.

use prost_reflect::DescriptorPool;

use crate::support::{program, run};

const FILE: &str = include_str!("../../proto/dcams/storage/v1/storage.proto");

#[test]
fn the_contract_is_printed_and_written_as_a_file_that_compiles_to_what_is_served() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(program().arg("proto").current_dir(folder.path()), "").ok(), FILE);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let told = run(program().args(["proto", "made/here"]).current_dir(folder.path()), "").ok();
    assert_eq!(told, "made/here/dcams/storage/v1/storage.proto\n");
    let files = protox::compile(["dcams/storage/v1/storage.proto"], [folder.path().join("made/here")]).unwrap();
    let written = DescriptorPool::from_file_descriptor_set(files).unwrap();
    let served = DescriptorPool::decode(proto::DESCRIPTORS).unwrap();
    let surface = |pool: &DescriptorPool| {
        let service = pool.get_service_by_name("dcams.storage.v1.StorageService").unwrap();
        let mut file = service.parent_file().file_descriptor_proto().clone();
        file.source_code_info = None;
        file
    };
    assert_eq!(surface(&written), surface(&served));

    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let line = run(program().arg("proto").arg(&blocked), "").fails(1);
    assert!(line.contains("storage.proto"), "{line}");
}
