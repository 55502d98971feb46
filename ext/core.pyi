"""The core of fastscreen, from accept to verdict and hand-off (Cython; see ext/)."""
