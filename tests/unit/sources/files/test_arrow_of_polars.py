"""Arrow files as polars writes them: text as views, categories, padding between the messages that nobody lists."""

import base64
import zlib
from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import matching_keys, open_array

# polars 2.1: DataFrame({"id": ["a", "b", "a"], "emb": numpy.arange(6, dtype="f4").reshape(3, 2)}) with id as
# pl.Categorical, .write_ipc(path, record_batch_size=2); the bytes in zlib and base85.
WRITTEN = (
    "c-rk%PfG$p6#wn+6iZ2%d9Y3%JDMFmv?5V~poq{>lZ1qX4tDng^Z|k{9y|6?JoX7ZM5l<52)5sw9c5h<TkF_c-psuB=KcHa&TO$(tDGMI3c#E1"
    "`)SD9;<$lLxEvJ}^<uZlJp_A))HONR$u8MSLVJnrm9`w`EIA`K2S_4CTN2xPcLGA6+-"
    "G5(kJ5gfUb`#$7WI;gZfJK~7*W3G`i^`>ZcgH6QrM$s2D^-!VD$8~hIjg8O(wA^j*>Z7$Q5o6^99MnlF_J^8>M3X_@q)hD;3Lm7#h<*@O5>>4-"
    "*fp)}{QVF;N<m&Lu$6ABOtxn>YcU4lCHv7)T{Araz%;Q-"
    "|Q4rcJt7!(wvH>_zm8<YY+an0FYasI2DXwD4Q%9|a|OUR=+(xLPaXs$$~mMsT&3U}od5sn1dd-"
    "m2b$>thI4Zw6O;2G{6W7=^xHIsf~{57^>a46uedi$BF68^O+=gXcv=ZpG{up?+^TSEv2TJ&|J7O5YWd`_vTwJVD#c1AD%HQq$N8)=!b|<^K*{d"
    "WSwRZ&Ck_z5$-Dw!8"
)


def test_files_of_polars__are_read_by_what_their_footer_lists(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    path.write_bytes(zlib.decompress(base64.b85decode("".join(WRITTEN))))

    assert matching_keys(path, "a.arrow", "{layer}") == ("id", "emb")
    np.testing.assert_array_equal(open_array(path, "a.arrow", "emb").load(), np.arange(6.0).reshape(3, 2))
    assert open_array(path, "a.arrow", "id").load().tolist() == ["a", "b", "a"]
    with open_array(path, "a.arrow", "emb").rows() as read:
        assert read(np.array([2, 0])).tolist() == [[4, 5], [0, 1]]


def test_files_whose_end_is_cut_off__are_refused(tmp_path: Path) -> None:
    content = zlib.decompress(base64.b85decode("".join(WRITTEN)))
    (tmp_path / "a.arrow").write_bytes(content[:-20])
    with pytest.raises(DataError, match="a file without a footer: it is cut off") as caught:
        open_array(tmp_path / "a.arrow", "a.arrow", "emb")
    assert caught.value.reason == "damaged_source"
