"""`unlikeness demo`: attack and protection from end to end, on one HTML page.

`story` runs it on the toybox; `report` writes its page, with sentences that `words` chooses by the figures.
`photographs` protects a user's own pictures and shows them.
"""
