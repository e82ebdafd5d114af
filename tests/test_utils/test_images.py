# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from mmpanet.utils.errors import DataError
from mmpanet.utils.images import MAX_PIXELS, Loading, check_loadable, decode_image, open_image, read_image_info
from mmpanet.utils.media import list_files

SIZE = (5, 7)


def new_pages():
    """Three images that nothing has saved: Pillow keeps the encoder's settings of one format for the next."""
    return [Image.new('RGB', SIZE[::-1], (100 * i, 0, 90)) for i in range(3)]


@pytest.mark.parametrize(
    'name, dtype, channels, bits',
    [
        ('a.png', np.uint8, 3, 8),
        ('a.png', np.uint16, 1, 16),
        ('color.png', np.uint16, 3, 16),  # Pillow decodes it to 8 bits
        ('a.tif', np.uint8, 1, 8),
        ('a.tif', np.uint16, 3, 16),
        ('a.tif', np.float32, 1, 32),
        ('a.tif', np.float64, 1, 64),  # Pillow does not know it
        ('a.pgm', np.uint16, 1, 16),
        ('a.ppm', np.uint8, 3, 8),
        ('a.jpg', np.uint8, 3, 8),
        ('a.webp', np.uint8, 3, 8),
        ('a.bmp', np.uint8, 3, 8),
    ],
)
def test_bits_against_opencv(tmp_path, name, dtype, channels, bits):
    path = tmp_path / name
    cv2.imwrite(str(path), np.full((*SIZE, channels), 200).astype(dtype))
    assert np.dtype(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).dtype).itemsize * 8 == bits
    for source in (path, path.read_bytes()):
        info = read_image_info(source, name)
        assert (info.height, info.width, info.pages, info.bits) == (*SIZE, 1, bits)
    if bits == 8:
        check_loadable(info, name)
        return
    with pytest.raises(DataError, match=rf'^{name}: holds {bits} bits per channel'):
        check_loadable(info, name)
    check_loadable(info, name, Loading(eight_bits=False))


@pytest.mark.parametrize('name', ['a.tif', 'a.gif', 'a.png', 'a.webp'])
def test_pages_are_counted(tmp_path, name):
    first, *others = new_pages()
    first.save(tmp_path / name, save_all=True, append_images=others)
    for source in (tmp_path / name, (tmp_path / name).read_bytes()):
        info = read_image_info(source, name)
        assert (info.height, info.width, info.pages) == (*SIZE, 3)
    with pytest.raises(DataError, match=f'^{name}: holds 3 pages'):
        check_loadable(info, name)


def test_previews_are_no_pages(tmp_path):
    """Cameras write a second, smaller image into a JPEG, and a map for zooming has smaller versions of itself."""
    left, right, large = new_pages()
    left.save(tmp_path / 'photo.jpg', 'MPO', save_all=True, append_images=[right])
    small = large.resize((3, 2))
    large.save(tmp_path / 'map.tif')
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / 'map.tif')) as stack:
        small.save(stack, 'TIFF', tiffinfo={254: 1})
    with Image.open(tmp_path / 'photo.jpg') as photo, Image.open(tmp_path / 'map.tif') as stack:
        assert photo.n_frames == stack.n_frames == 2
    for name in ('photo.jpg', 'map.tif'):
        info = read_image_info(tmp_path / name, name)
        assert (info.height, info.width, info.pages) == (*SIZE, 1)
        check_loadable(info, name)


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.webp'])
def test_size_of_a_turned_image_against_opencv(tmp_path, name):
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn to the right
    new_pages()[0].save(tmp_path / name, exif=exif)
    info = read_image_info(tmp_path / name, name)
    assert (info.height, info.width) == cv2.imread(str(tmp_path / name)).shape[:2]
    if name == 'a.jpg':  # which of the others are turned depends on the version of OpenCV
        assert (info.height, info.width) == SIZE[::-1]


def with_segment(name, path, content, density_unit=1):
    """Write a JPEG with one more APP1 segment, behind JFIF's."""
    new_pages()[0].save(path, dpi=(72, 72) if density_unit else (0, 0))
    data = path.read_bytes()
    end_of_jfif = 4 + int.from_bytes(data[4:6], 'big')
    assert data[2:4] == b'\xff\xe0' and data[6:10] == b'JFIF'
    segment = b'\xff\xe1' + (len(content) + 2).to_bytes(2, 'big') + content
    path.write_bytes(data[:end_of_jfif] + segment + data[end_of_jfif:])


@pytest.mark.parametrize(
    'content',
    [
        b'Exif\0\0no header of TIFF',
        b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>',
    ],
    ids=['broken EXIF', 'XMP'],
)
def test_orientations_that_opencv_does_not_read(tmp_path, content):
    path = tmp_path / 'a.jpg'
    with_segment('a.jpg', path, content)
    assert cv2.imread(str(path)).shape[:2] == SIZE
    info = read_image_info(path, 'a.jpg')
    assert (info.height, info.width, info.is_turned) == (*SIZE, False)


def test_large_images(tmp_path):
    """Pillow refuses 200 million pixels as a bomb; OpenCV does not."""
    path = tmp_path / 'large.png'
    Image.new('1', (20000, 10000)).save(path)
    with pytest.raises(Image.DecompressionBombError), Image.open(path):
        pass
    assert read_image_info(path, 'large.png')[:2] == (10000, 20000)
    with pytest.raises(Image.DecompressionBombError), Image.open(path):
        pass  # the limit holds again for everybody else
    Image.new('1', (2**15, 2**15 + 1)).save(path)
    with pytest.raises(DataError, match=rf'^large.png: 32769 x 32768 pixels .* up to {MAX_PIXELS}'):
        read_image_info(path, 'large.png')


@pytest.mark.parametrize(
    'content', [b'', b'no image', b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR', b'II*\0\xff\xff\xff\xff', b'P5']
)
def test_what_is_no_image_is_named(content, capfd):
    for read in (read_image_info, lambda data, name: decode_image(data, cv2.IMREAD_COLOR, name)):
        with pytest.raises(DataError, match='^x.png: not readable as an image'):
            read(content, 'x.png')
    assert capfd.readouterr() == ('', '')


def test_errors_while_decoding_are_named(tmp_path):
    path = tmp_path / 'half.png'
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r'^half.png: not readable as an image \(.*truncated'), open_image(
        path, 'half.png'
    ) as image:
        image.load()


def test_files_of_operating_systems_are_passed_over(tmp_path):
    wanted = ['a.PNG', 'b/c.jpg', 'b/Thumbs.png']
    others = [
        '._a.PNG',
        'b/.DS_Store',
        'Thumbs.db',
        'b/desktop.ini',
        '__MACOSX/b/._c.jpg',
        '.git/x.png',
        '@eaDir/a.jpg',
    ]
    for name in wanted + others + ['notes.txt']:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b'')

    def names(*args):
        return {path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path, *args)}

    assert names() == {*wanted, 'notes.txt'}
    assert names(['.png', '.jpg']) == set(wanted)
    assert names(['.png', '.jpg'], False) == {'a.PNG'}


def test_links_to_nothing_are_named(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'')
    (tmp_path / 'b.png').symlink_to('gone.png')
    with pytest.raises(DataError, match=r'b.png: a link to gone.png, which is not there$'):
        list_files(tmp_path, ['.png'])
    (tmp_path / 'b.png').unlink()
    (tmp_path / 'b.png').symlink_to('a.png')
    assert [path.name for path in list_files(tmp_path, ['.png'])] == ['a.png', 'b.png']


def test_links_in_a_circle_are_named(tmp_path):
    """Python would follow one forty times, and find each file as often."""
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'a.png').write_bytes(b'')
    (tmp_path / 'elsewhere').symlink_to('in')
    assert len(list_files(tmp_path)) == 2
    (tmp_path / 'in' / 'again').symlink_to('..')
    with pytest.raises(DataError, match='again: a link to a folder that it lies in$'):
        list_files(tmp_path)
    assert len(list_files(tmp_path, recursive=False)) == 0
