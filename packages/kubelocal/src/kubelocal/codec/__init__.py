"""API objects on the wire: the served kinds, their schema, JSON and protobuf decoding, Status bodies."""
