"""A second, independent reader of modelseal files, written from docs/FORMAT.md alone.

"Section" means a section of that document. It is for tests: it keeps files in memory, wipes nothing and repeats no
comparison. It needs Python 3.11 and the packages `cryptography` and `blake3`.
"""
