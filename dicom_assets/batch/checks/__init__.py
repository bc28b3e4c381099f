"""The rules that a batch must keep; each is checked by SQL or a reader that does not share the code it judges."""
