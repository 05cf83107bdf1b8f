"""The SDM network: a U-Net with SPADE in the decoder."""
