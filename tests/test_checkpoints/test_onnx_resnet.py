# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""mmdet's ResNets, exported to ONNX and read back."""

import pytest
import torch
from mmengine.utils import digit_version
from tiny_training import run_tool
from torch import nn

from mmdet.models.backbones import ResNet
from mmpanet.checkpoints.onnx_resnet import build_backbone, compare_features, read_onnx_resnet
from mmpanet.utils.errors import CheckpointError

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


class Classifier(nn.Module):
    """A backbone with images of the last channel in front and a pooled class score behind, as files from elsewhere."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.feat_dim, 3)

    def forward(self, image):
        return self.fc(self.backbone(image.permute(0, 3, 1, 2))[-1].mean(dim=(2, 3)))


def randomize(model):
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    model.eval()
    return model


def write(model, path, keep_norms):
    mode = torch.onnx.TrainingMode.PRESERVE if keep_norms else torch.onnx.TrainingMode.EVAL
    legacy = {'dynamo': False} if 'dynamo' in torch.onnx.export.__code__.co_varnames else {}
    torch.onnx.export(
        model, (torch.rand(1, 64, 96, 3),), str(path), training=mode, do_constant_folding=not keep_norms, **legacy
    )


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('keep_norms', [False, True], ids=['folded', 'norms'])
@pytest.mark.parametrize('depth, style', [(18, 'pytorch'), (50, 'pytorch'), (50, 'caffe')])
def test_a_resnet_comes_back(depth, style, keep_norms, tmp_path):
    original = randomize(ResNet(depth, base_channels=8, stem_channels=16, style=style))
    write(Classifier(original).eval(), tmp_path / 'model.onnx', keep_norms)
    resnet = read_onnx_resnet(tmp_path / 'model.onnx')
    assert resnet.backbone['depth'] == depth and resnet.backbone['style'] == style
    kinds = {node.op_type for node in onnx.load(str(tmp_path / 'model.onnx')).graph.node}
    assert ('BatchNormalization' in kinds) == keep_norms
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for found, expected in zip(build_backbone(resnet)(image), original(image)):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert len(compare_features(tmp_path / 'model.onnx', resnet)) == 4
    assert max(compare_features(tmp_path / 'model.onnx', resnet)) < 1e-4


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'layers, problem',
    [
        ([nn.Conv2d(3, 8, 3)], r'its first conv is of size \(3, 3\)'),
        ([nn.Conv2d(3, 8, 7, stride=2), nn.ReLU()], 'it has no MaxPool'),
        ([nn.Conv2d(3, 8, 7, stride=2), nn.MaxPool2d(2)], 'not 3 x 3 with stride 2'),
        ([nn.Conv2d(3, 8, 7, stride=2), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3)], r'its stages have \(\) blocks'),
        ([nn.Flatten()], 'it has no Conv'),
    ],
)
def test_other_graphs_are_refused(layers, problem, tmp_path):
    class Model(nn.Sequential):
        def forward(self, image):
            return super().forward(image.permute(0, 3, 1, 2))

    write(Model(*layers).eval(), tmp_path / 'model.onnx', False)
    with pytest.raises(CheckpointError, match=problem):
        read_onnx_resnet(tmp_path / 'model.onnx')


@pytest.mark.parametrize('content', [b'', b'no graph', None])
def test_a_file_that_is_no_graph_is_one_line(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / 'model.onnx').write_bytes(content)
    with pytest.raises((CheckpointError, OSError), match=r'^.*model\.onnx.*$'):
        run_tool('onnx_resnet', 'model.onnx', 'out.pth')
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('broken', ['nan', 'dead'])
def test_a_stage_whose_features_cannot_be_compared_is_refused(broken, tmp_path):
    """A difference that is no number passed, because it stood behind smaller ones."""
    original = randomize(ResNet(18, base_channels=8, stem_channels=16))
    with torch.no_grad():
        if broken == 'nan':
            original.layer4[0].conv1.weight[0, 0, 0, 0] = float('nan')
        else:
            original.layer4[1].bn2.bias.fill_(-1e6)  # the last ReLU gives zeros
    write(Classifier(original).eval(), tmp_path / 'model.onnx', False)
    with pytest.raises(CheckpointError, match='features differ by more than 0.0001; nothing was written'):
        run_tool('onnx_resnet', tmp_path / 'model.onnx', tmp_path / 'out.pth')
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('dtype', [torch.float32, torch.uint8])
def test_graphs_of_a_fixed_batch_and_of_bytes(dtype, tmp_path):
    class Fixed(Classifier):
        def forward(self, image):
            return super().forward(image.float())

    original = randomize(ResNet(18, base_channels=8, stem_channels=16))
    legacy = {'dynamo': False} if 'dynamo' in torch.onnx.export.__code__.co_varnames else {}
    image = torch.randint(0, 256, (3, 64, 96, 3)).to(dtype)
    torch.onnx.export(Fixed(original).eval(), (image,), str(tmp_path / 'model.onnx'), **legacy)
    resnet = read_onnx_resnet(tmp_path / 'model.onnx')
    assert max(compare_features(tmp_path / 'model.onnx', resnet)) < 1e-4


HALF_ON_A_CPU = pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.2'), reason='this torch has no float16 convs on a CPU'
)


class WithSize(Classifier):
    def forward(self, image, size):
        return super().forward(image) * size


class InHalf(Classifier):
    def forward(self, image):
        return self.fc(self.backbone(image.permute(0, 3, 1, 2).half())[-1].mean(dim=(2, 3)))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'form, problem',
    [
        ('size', "takes 'size' beside the image 'image', so it is not compared"),
        ('caffe', r'a map of \(1, 8, 17, 25\) is \(1, 8, 16, 24\) in mmdet: its stem pads or rounds in another way'),
        pytest.param('half', 'computes in float16; only float32 can be compared', marks=HALF_ON_A_CPU),
    ],
)
def test_graphs_that_cannot_be_compared_are_named(form, problem, tmp_path):
    original = randomize(ResNet(18, base_channels=8, stem_channels=16))
    kind = dict(size=WithSize, half=InHalf).get(form, Classifier)
    if form == 'caffe':
        original.maxpool = nn.MaxPool2d(3, 2, padding=0)
    model = kind(original).eval()
    image = torch.rand(1, 68, 100, 3)
    inputs = (image, torch.ones(1)) if form == 'size' else (image,)
    legacy = {'dynamo': False} if 'dynamo' in torch.onnx.export.__code__.co_varnames else {}
    names = ['image', 'size'][: len(inputs)]
    torch.onnx.export(
        model.half() if form == 'half' else model, inputs, str(tmp_path / 'm.onnx'), input_names=names, **legacy
    )
    if form == 'caffe':  # torch before 2.2 writes pads in place of ceil_mode
        graph = onnx.load(str(tmp_path / 'm.onnx'))
        [pool] = [node for node in graph.graph.node if node.op_type == 'MaxPool']
        kept = [one for one in pool.attribute if one.name != 'ceil_mode']
        del pool.attribute[:]
        pool.attribute.extend([*kept, onnx.helper.make_attribute('ceil_mode', 1)])
        onnx.save(graph, str(tmp_path / 'm.onnx'))
    with pytest.raises(CheckpointError, match=problem):
        compare_features(tmp_path / 'm.onnx', read_onnx_resnet(tmp_path / 'm.onnx'))
