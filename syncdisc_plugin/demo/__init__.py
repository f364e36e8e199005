"""The offline demo: invented speakers, real files, the whole method.

voice      speech-like sound and the articulation that made it
portrait   one photograph whose mouth moves, differentiably, in many appearances
footage    the mp4 files of a demo, some out of sync, and the truth about them
generator  a small talking-face generator that a sync loss trains
"""
