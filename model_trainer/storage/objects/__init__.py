"""Object stores: paths that start with s3://, gs:// or az://, read and written by obstore.

A folder is the set of objects whose keys start with its path and a "/". `make_folder` marks an empty one by an object.
"""
