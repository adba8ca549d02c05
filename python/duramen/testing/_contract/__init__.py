"""The rules of the store contract, by topic; `duramen.testing.StoreContract` is all of them."""
