"""Networks alone: the SPADE U-Net, the codecs, and the official names of its weights."""
