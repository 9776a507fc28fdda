"""Callbacks that can be declared; any `keras.callbacks.Callback` works beside them."""
