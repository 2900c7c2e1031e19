"""Where the control, docker-registry 2.8 of Debian, is known to differ: why, and the tests that show it.

Such a test must fail there; one that passes is a mistake in this table. A test named without parameters differs with
all of them. Parts of the specification that are optional stand beside violations, and say so.
"""

_DIFFERENCES: dict[str, tuple[str, ...]] = {
    "names are not checked before an upload begins, and long ones are a 500 of the file system": (
        "test_base::test_bad_names[GET-too-long]",
        "test_base::test_bad_names[POST-too-long]",
        "test_base::test_bad_names[POST-upper-case]",
    ),
    "/v2/ answers 200 to every method": ("test_base::test_methods[ping]",),
    "there is no referrers API: 404 to everything, clients use the fallback tag": (
        "test_base::test_methods[referrers]",
        "test_referrers::test_none",
        "test_referrers::test_an_unknown_digest",
        "test_referrers::test_an_unknown_repository",
        "test_referrers::test_a_malformed_digest",
        "test_referrers::test_an_artifact",
        "test_referrers::test_an_image_without_artifact_type",
        "test_referrers::test_an_index_without_artifact_type",
        "test_referrers::test_an_index_with_artifact_type",
        "test_referrers::test_several",
        "test_referrers::test_a_referrer_of_a_referrer",
        "test_referrers::test_before_the_subject",
        "test_referrers::test_deleted",
        "test_referrers::test_a_deleted_subject",
        "test_referrers::test_another_repository",
        "test_referrers::test_many",
        "test_referrers::test_filtered",
        "test_referrers::test_not_filtered",
    ),
    "subjects are not processed: no OCI-Subject, and what is no descriptor passes": (
        "test_manifest_push::test_a_subject",
        "test_manifest_push::test_an_index_with_a_subject",
        "test_manifest_push::test_a_subject_that_is_no_descriptor",
    ),
    "blobs pushed by sha512 are known by their sha256, which the headers tell": (
        "test_blobs::test_a_sha512_blob",
        "test_uploads::test_the_whole_blob_in_the_put[sha512]",
        "test_uploads::test_nothing_in_the_put[sha512]",
        "test_uploads::test_an_algorithm_told_in_advance[sha512]",
        "test_mounts::test_mounted[sha512]",
    ),
    "manifests are named by sha256 alone: a sha512 digest is 400": (
        "test_manifest_push::test_by_sha512",
        "test_kinds::test_every_kind_by_sha512",
        "test_referrers::test_a_sha512_subject",
    ),
    "the 416 of a range has the blob's own Content-Length and is cut short": (
        "test_blobs::test_a_range_behind_the_end",
        "test_blobs::test_a_range_that_is_none",
    ),
    "a range of an unknown unit is 416": ("test_blobs::test_a_range_of_another_unit",),
    "HEAD heeds Range": ("test_blobs::test_a_range_means_nothing_to_head",),
    "Content-Range of a PATCH is not looked at: every chunk goes to the end, 202": (
        "test_chunks::test_the_first_chunk_begins_at_zero",
        "test_chunks::test_a_chunk_out_of_order",
        "test_chunks::test_no_proper_content_range",
        "test_chunks::test_a_content_range_of_another_length",
    ),
    "Content-Range of the closing PUT is not looked at either": ("test_uploads::test_the_last_chunk_out_of_order",),
    "a session's location without its signature is BLOB_UPLOAD_INVALID before it is looked for": (
        "test_chunks::test_the_status_of_nothing",
        "test_chunks::test_cancelling_nothing",
        "test_uploads::test_an_unknown_session",
    ),
    "tags cannot be deleted (optional): 400": (
        "test_deletes::test_a_tag",
        "test_deletes::test_the_last_tag",
        "test_deletes::test_an_unknown_tag",
        "test_deletes::test_a_manifest_of_an_unknown_repository[tag]",
    ),
    "a layer with urls that was not pushed is a 500": ("test_kinds::test_a_foreign_layer",),
    "what is no digest is taken for a tag, which ends as a 500": (
        "test_manifest_push::test_no_proper_digest",
        "test_manifests::test_a_malformed_digest[short]",
        "test_manifests::test_a_malformed_digest[not-hex]",
        "test_manifests::test_a_malformed_digest[unknown-algorithm]",
        "test_manifests::test_a_malformed_digest[too-long]",
    ),
    "a manifest above the limit is 400 MANIFEST_INVALID": ("test_manifest_push::test_too_large",),
    "OCI manifests are 404 unless Accept names their type": ("test_manifests::test_accept_does_not_convert",),
    "a layer asked for as a manifest is read as one, which is a 500": ("test_manifests::test_a_blob_is_no_manifest",),
    "a mount without `from` opens a session (optional)": ("test_mounts::test_mounted_without_from",),
    "tags come in the order of the file system, all at once: n and last are not looked at": (
        "test_tags::test_the_order",
        "test_tags::test_a_page",
        "test_tags::test_all_pages[1]",
        "test_tags::test_all_pages[5]",
        "test_tags::test_a_page_of_none",
        "test_tags::test_after",
        "test_tags::test_after_and_so_many",
        "test_tags::test_after_a_tag_that_is_not_there",
        "test_tags::test_after_the_last",
    ),
    "a repository that never had a tag is 404": ("test_tags::test_no_tags",),
    "tag parameters are not looked at (main branch)": (
        "test_tags::test_tags_of_a_digest",
        "test_tags::test_more_tags_than_ten",
        "test_tags::test_no_tag_that_is_none",
    ),
    "a single POST opens a session, and its body is dropped (optional)": (
        "test_uploads::test_a_single_post",
        "test_uploads::test_a_single_post_of_nothing",
        "test_uploads::test_a_single_post_of_something_else",
        "test_uploads::test_a_single_post_without_a_digest",
    ),
    "digest-algorithm is not looked at (main branch)": ("test_uploads::test_an_unsupported_algorithm",),
    "the catalog is sorted by path, so that a repository's children come before its neighbours": (
        "test_catalog::test_the_order",
    ),
}

DEVIATIONS = {test: why for why, tests in _DIFFERENCES.items() for test in tests}
