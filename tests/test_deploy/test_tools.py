# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The command lines: from a checkpoint to graphs, and from a graph to its AP."""

import json

import pytest
import torch
from mmengine.config import Config
from small_detectors import build
from tiny_training import make_data, run_tool, write_config

pytest.importorskip('onnxruntime')


def ap_of(folder):
    [file] = folder.glob('*/*.json')
    return json.loads(file.read_text())


def test_what_the_command_line_of_the_export_hands_on(tmp_path, monkeypatch):
    config = write_config(tmp_path / 'tiny.py', str(tmp_path / 'data'))
    torch.save(dict(state_dict=build(Config.fromfile(config)).state_dict()), tmp_path / 'a.pth')
    seen = []
    monkeypatch.setattr('mmpanet.deploy.export_detector', lambda *args: seen.append(args[2:]) or [])
    words = [config, tmp_path / 'a.pth', '--out', tmp_path / 'out']
    run_tool('export_onnx', *words)
    run_tool('export_onnx', *words, '--masks', 'box', '--input-type', 'float32', '--sizes')
    run_tool('export_onnx', *words, '--winograd')
    assert [args[2:] for args in seen] == [
        (True, None, False, False),
        (False, 'float32', True, False),
        (True, None, False, True),
    ]
    assert all(str(args[0]) == str(tmp_path / 'out') for args in seen)


def test_from_a_checkpoint_to_the_ap_of_its_graphs(tmp_path, capsys):
    data = make_data(tmp_path / 'data', num_train=1, num_val=2, empty_fraction=0.0)
    config = write_config(tmp_path / 'tiny.py', data)
    cfg = Config.fromfile(config)
    model, out = build(cfg), tmp_path / 'graphs'
    classes = ('ellipse', 'triangle', 'star', 'ring')
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=classes))), tmp_path / 'a.pth')
    images = tmp_path / 'data' / 'images'
    run_tool(
        'export_onnx', config, tmp_path / 'a.pth', '--out', out, '--int8', '--calibrate', images, '--verify', images
    )
    said = capsys.readouterr().out  # torch 2.0 says more
    assert [line.split()[0] for line in said.splitlines() if line.startswith(str(out))] == [
        str(out / name) for name in ('end2end.onnx', 'detector.json', 'end2end_int8.onnx')
    ]
    in_float, in_int8 = (
        dict(line.split() for line in said.split(f'\n{name}, onnxruntime\n')[1].splitlines()[:6])
        for name in ('end2end.onnx', 'end2end_int8.onnx')
    )
    assert int(in_float['detections']) == int(in_float['matched']) > 0 and float(in_float['scores']) < 1e-4
    assert float(in_int8['scores']) > 1e-4  # another graph, not the same one twice

    run_tool('test', config, tmp_path / 'a.pth', '--work-dir', tmp_path / 'pytorch')
    run_tool('test_onnx', config, out / 'end2end.onnx', '--work-dir', tmp_path / 'graph')
    expected, found = ap_of(tmp_path / 'pytorch'), ap_of(tmp_path / 'graph')
    assert expected['coco/bbox_mAP_50'] > 0.005
    for key in (key for key in expected if 'mAP' in key):
        assert found[key] == pytest.approx(expected[key], abs=1e-3), key
    options = ['model.test_cfg.rcnn.mask_thr_binary=0.4', 'model.test_cfg.rcnn.max_per_img=3']
    with pytest.raises(SystemExit, match=r'max_per_img: the graph holds the model as it was exported'):
        run_tool('test_onnx', config, out / 'end2end.onnx', '--cfg-options', *options)
    settings = json.loads((out / 'detector.json').read_text())
    (out / 'detector.json').write_text(json.dumps(dict(settings, classes=classes[::-1])))
    with pytest.raises(SystemExit, match=r'detector\.json: test_dataloader.*has its classes in another order'):
        run_tool('test_onnx', config, out / 'end2end.onnx', '--work-dir', tmp_path / 'other')
