# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Run an exported detector: numpy, onnxruntime and OpenCV, no PyTorch.

The export puts this file beside the graphs, where it works by itself::

    python onnx_detector.py IMAGE [IMAGE ...] [--out FOLDER] [--score-thr 0.3]
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

# mmdet's: no box grows or shrinks by more than 1000 / 16 at once.
MAX_LOG_RATIO = abs(np.log(16 / 1000))
# mmcv's: from so many boxes on, its NMS goes class by class.
MANY_BOXES = 10000


class ONNXDetector:
    """A two-stage detector, from image to boxes, scores, labels, masks.

    Args:
        folder (str): Where the export wrote the graphs and detector.json.
        providers (list[str]): onnxruntime's execution providers.
            Defaults to the CPU's.
        threads (int): Threads of onnxruntime; 0 lets it choose.
    """

    def __init__(self, folder, providers=('CPUExecutionProvider',), threads=0):
        folder = Path(folder)
        self.settings = json.loads((folder / 'detector.json').read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.graphs = {
            name: onnxruntime.InferenceSession(str(folder / f'{name}.onnx'), options, providers=list(providers))
            for name in ('dense', 'box', 'mask')
            if name == 'dense' or name in self.settings
        }

    def __call__(self, image):
        """Detect.

        Args:
            image (np.ndarray): (H, W, 3), uint8, BGR as OpenCV reads it.

        Returns:
            dict: bboxes (n, 4) in pixels of the image, scores (n, ), labels
            (n, ), and masks (n, H, W) of bool if there is a mask head.
        """
        x, shape, scale = self.preprocess(image)
        outputs = self.graphs['dense'].run(None, {'image': x})
        count = self.settings['num_maps']
        maps, rpn_scores, rpn_deltas = (outputs[i * count : (i + 1) * count] for i in range(3))
        proposals = self.propose(rpn_scores, rpn_deltas, shape)
        boxes, scores, labels = self.classify(maps, proposals, shape)
        result = dict(bboxes=boxes / np.tile(scale, 2), scores=scores, labels=labels)
        if 'mask' in self.settings:
            result['masks'] = self.segment(maps, boxes, labels, result['bboxes'], image.shape[:2])
        return result

    def preprocess(self, image):
        """Resize, normalise, pad; returns (1, 3, H, W), the size before padding, and the scale of x and y."""
        settings = self.settings['preprocess']
        height, width = image.shape[:2]
        if settings['scale'] is None:
            new = [int(size * factor + 0.5) for size, factor in zip((width, height), settings['scale_factor'])]
        elif settings['keep_ratio']:
            short, long = sorted(settings['scale'])
            factor = min(long / max(height, width), short / min(height, width))
            new = [int(size * factor + 0.5) for size in (width, height)]
        else:
            new = settings['scale']
        x = cv2.resize(image, tuple(new), interpolation=cv2.INTER_LINEAR)
        x = (x[..., ::-1] if settings['to_rgb'] else x).astype(np.float32)
        x = (x - np.float32(settings['mean'])) / np.float32(settings['std'])
        padding = [(0, -size % settings['pad_size_divisor']) for size in x.shape[:2]]
        x = np.pad(x, (*padding, (0, 0)), constant_values=settings['pad_value'])
        scale = np.array([new[0] / width, new[1] / height], np.float32)
        return np.ascontiguousarray(x.transpose(2, 0, 1)[None]), (new[1], new[0]), scale

    def propose(self, scores, deltas, shape):
        """The RPN's best boxes of all levels, (N, 4)."""
        settings = self.settings['rpn']
        boxes, kept_scores, levels = [], [], []
        for level, (score, delta) in enumerate(zip(scores, deltas)):
            priors = anchors(np.float32(settings['base_anchors'][level]), settings['strides'][level], score.shape[2:])
            score = score[0].transpose(1, 2, 0).ravel()
            delta = delta[0].transpose(1, 2, 0).reshape(-1, 4)
            if 0 < settings['nms_pre'] < len(score):
                best = np.argsort(-score, kind='stable')[: settings['nms_pre']]
                score, delta, priors = score[best], delta[best], priors[best]
            boxes.append(decode(priors, delta, settings['coder'], shape))
            kept_scores.append(score)
            levels.append(np.full(len(score), level))
        boxes, scores, levels = np.concatenate(boxes), np.concatenate(kept_scores), np.concatenate(levels)
        if settings['min_bbox_size'] >= 0:
            large = (boxes[:, 2:] - boxes[:, :2] > settings['min_bbox_size']).all(1)
            boxes, scores, levels = boxes[large], scores[large], levels[large]
        return boxes[batched_nms(boxes, scores, levels, settings['nms'])[: settings['max_per_img']]]

    def classify(self, maps, proposals, shape):
        """Boxes in pixels of the resized image, scores, labels."""
        settings = self.settings['box']
        scores, deltas = self._run('box', maps, proposals)
        num_classes = scores.shape[1] - 1
        priors = np.repeat(proposals, deltas.shape[1] // 4, axis=0)
        boxes = decode(priors, deltas.reshape(-1, 4), settings['coder'], shape).reshape(len(deltas), -1, 4)
        boxes = np.broadcast_to(boxes, (len(deltas), num_classes, 4)).reshape(-1, 4)
        labels = np.tile(np.arange(num_classes), len(deltas))
        scores = scores[:, :-1].ravel()
        sure = scores > settings['score_thr']
        boxes, scores, labels = boxes[sure], scores[sure], labels[sure]
        kept = batched_nms(boxes, scores, labels, settings['nms'])
        kept = kept[: settings['max_per_img']] if settings['max_per_img'] > 0 else kept
        return boxes[kept], scores[kept], labels[kept]

    def segment(self, maps, boxes, labels, image_boxes, shape):
        """Masks in the image, (n, H, W) of bool."""
        settings = self.settings['mask']
        if len(boxes) == 0:
            return np.zeros((0, *shape), bool)
        (masks,) = self._run('mask', maps, boxes)
        masks = masks[:, 0] if settings['class_agnostic'] else masks[np.arange(len(labels)), labels]
        return np.stack([paste(mask, box, shape) >= settings['threshold'] for mask, box in zip(masks, image_boxes)])

    def _run(self, name, maps, boxes):
        rois = np.concatenate([np.zeros((len(boxes), 1)), boxes], axis=1).astype(np.float32)
        inputs = {f'map_{i}': maps[i] for i in range(self.settings[name]['num_maps'])}
        return self.graphs[name].run(None, dict(rois=rois, **inputs))


def anchors(base_anchors, stride, shape):
    """The anchors of one level, (H * W * A, 4), from those of its first cell."""
    x, y = np.meshgrid(np.arange(shape[1]) * stride[0], np.arange(shape[0]) * stride[1])
    shifts = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4).astype(np.float32)
    return (shifts + base_anchors).reshape(-1, 4)


def decode(boxes, deltas, coder, shape):
    """Move and scale ``boxes`` (N, 4) by ``deltas`` (N, 4), within the image."""
    deltas = deltas * np.float32(coder['stds']) + np.float32(coder['means'])
    size = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) * np.float32(0.5) + size * deltas[:, :2]
    size = size * np.exp(np.clip(deltas[:, 2:], -MAX_LOG_RATIO, MAX_LOG_RATIO))
    boxes = np.concatenate([centre - size * np.float32(0.5), centre + size * np.float32(0.5)], axis=1)
    if coder['clip_border']:
        boxes = np.clip(boxes, 0, np.float32([shape[1], shape[0]] * 2))
    return boxes.astype(np.float32)


def batched_nms(boxes, scores, groups, settings):
    """Indices that are left, best first; boxes of two groups do not touch."""
    if len(boxes) == 0:
        return np.zeros(0, int)
    if settings['class_agnostic']:
        return nms(boxes, scores, settings['iou_threshold'])
    if len(boxes) < MANY_BOXES:
        offsets = groups.astype(np.float32) * (boxes.max() + np.float32(1))
        return nms(boxes + offsets[:, None], scores, settings['iou_threshold'])
    kept = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        kept.append(members[nms(boxes[members], scores[members], settings['iou_threshold'])])
    kept = np.concatenate(kept)
    return kept[np.argsort(-scores[kept], kind='stable')]


def nms(boxes, scores, iou_threshold):
    """Greedy non-maximum suppression: indices that are left, best first."""
    order = np.argsort(-scores, kind='stable')
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        overlap = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
        overlap = np.clip(overlap, 0, None).prod(1)
        # Without a division: two empty boxes leave each other alone.
        order = order[~(overlap > np.float32(iou_threshold) * (area[best] + area[order] - overlap))]
    return np.array(kept)


def paste(mask, box, shape):
    """A mask (h, w) of probabilities drawn into its box, bilinear, in an image of ``shape``."""
    pasted = np.zeros(shape, np.float32)
    (y, rows), (x, columns) = (
        _taps(box[axis], box[axis + 2], mask.shape[1 - axis], shape[1 - axis]) for axis in (1, 0)
    )
    pasted[y, x] = rows @ mask @ columns.T
    return pasted


def _taps(start, end, size, limit):
    """Pixels of the image along one axis, and what each takes of the mask's ``size``."""
    first, last = max(int(np.floor(start)) - 1, 0), min(int(np.ceil(end)) + 1, limit)
    pixels = np.arange(first, max(first, last), dtype=np.float32) + np.float32(0.5)
    with np.errstate(divide='ignore', invalid='ignore'):
        position = (pixels - start) / (end - start)
    # An empty box has no inside: its pixels read the middle, as in mmdet.
    position = np.where(np.isfinite(position), position, 0.5) * size - 0.5
    weights = np.clip(1 - np.abs(position[:, None] - np.arange(size)), 0, None)
    return slice(first, max(first, last)), weights.astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description='Detect in images with an exported detector.')
    parser.add_argument('images', nargs='+')
    parser.add_argument('--folder', default=Path(__file__).parent, help="the export's; by default this file's own")
    parser.add_argument('--score-thr', type=float, default=0.3)
    parser.add_argument('--out', help='folder for pictures with the detections drawn in')
    args = parser.parse_args()
    detector = ONNXDetector(args.folder)
    for path in args.images:
        image = cv2.imread(path)
        if image is None:
            parser.error(f'{path}: not an image that OpenCV can read')
        result = detector(image)
        shown = np.flatnonzero(result['scores'] >= args.score_thr)
        print(f'{path}: {len(shown)} objects')
        names = detector.settings['classes']
        for i in shown:
            label = result['labels'][i]
            box = ' '.join(f'{value:.1f}' for value in result['bboxes'][i])
            print(f'  {names[label] if names else label} {result["scores"][i]:.3f} {box}')
            if args.out:
                x1, y1, x2, y2 = result['bboxes'][i].round().astype(int).tolist()
                cv2.rectangle(image, (x1, y1), (x2, y2), (0, 200, 255), 1)
                if 'masks' in result:
                    image[result['masks'][i]] = image[result['masks'][i]] // 2 + np.uint8([0, 100, 127])
        if args.out:
            Path(args.out).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(Path(args.out, Path(path).name).with_suffix('.png')), image)


if __name__ == '__main__':
    main()
