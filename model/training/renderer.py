"""Draws a synthetic presenter: moderngl on EGL, headless, on a CPU (llvmpipe) or a GPU.

What belongs to a person (skin paint, hair, clothes, soft shadows) is made once and kept while the same person is
drawn; a frame then moves the face's vertices and draws at four times the size, filtered down on the device.
"""

from __future__ import annotations

from typing import Any

import moderngl
import numpy as np

from . import backdrops, clothes, glasses, hair, shaders, stage
from .head import (
    EYE_LEFT,
    EYE_RIGHT,
    EYE_SOCKETS,
    GUMS_TONGUE,
    LASHES,
    LOWER_TEETH,
    MOUTH_SOCKET,
    SKIN,
    UPPER_TEETH,
    Head,
)
from .lightbake import LightBaker
from .meshes import head_weight
from .people import FramePose, Person
from .resting import RestingFace
from .textures import SIZE as SKIN_SIZE
from .textures import PaintSpace, paint_skin, smooth, unroll

# Samples a pixel and direction. At two, outlines of hair and teeth were steps that no network can foresee.
_FINER = 4
_EYES = (EYE_LEFT, EYE_RIGHT)


class Renderer:
    """Not thread-safe: owns one GL context, to be used in the thread that made it."""

    def __init__(self, head: Head, size: int = 256) -> None:
        self.size = size
        self._head = head
        self._space = PaintSpace(head)
        settings: Any = {"backend": "egl"}  # moderngl's stub types the keyword as a dict
        self._context = moderngl.create_context(standalone=True, **settings)
        context = self._context
        self._programs: dict[str, Any] = {
            "head": context.program(vertex_shader=shaders.HEAD_VERTEX, fragment_shader=shaders.HEAD_FRAGMENT),
            "eye": context.program(vertex_shader=shaders.HEAD_VERTEX, fragment_shader=shaders.EYE_FRAGMENT),
            "cloth": context.program(vertex_shader=shaders.CLOTH_VERTEX, fragment_shader=shaders.CLOTH_FRAGMENT),
            "hair": context.program(vertex_shader=shaders.HAIR_VERTEX, fragment_shader=shaders.HAIR_FRAGMENT),
            "head_motion": context.program(vertex_shader=shaders.HEAD_MOTION_VERTEX, fragment_shader=shaders.MOTION_FRAGMENT),
            "solid_motion": context.program(vertex_shader=shaders.SOLID_MOTION_VERTEX, fragment_shader=shaders.MOTION_FRAGMENT),
            "screen": context.program(vertex_shader=shaders.SCREEN_VERTEX, fragment_shader=shaders.SCREEN_FRAGMENT),
        }
        self._baker = LightBaker(context)
        large = (size * _FINER, size * _FINER)
        self._colour = context.texture(large, 4)
        self._colour.filter = (moderngl.LINEAR_MIPMAP_NEAREST, moderngl.LINEAR)
        self._large = context.framebuffer([self._colour], context.depth_renderbuffer(large))
        self._small = context.framebuffer([context.texture((size, size), 4)])
        positions = context.texture((size, size), 4, dtype="f4")
        self._motion = context.framebuffer([positions], context.depth_renderbuffer((size, size)))
        corners = context.buffer(np.array([-1, -1, 1, -1, -1, 1, 1, 1], "f4").tobytes())
        self._screen = context.vertex_array(self._programs["screen"], [(corners, "2f", "in_corner")])
        self._moving = context.buffer(reserve=len(head.vertices) * 24, dynamic=True)
        self._source = context.buffer(reserve=len(head.vertices) * 12, dynamic=True)
        self._skin = context.texture((SKIN_SIZE, SKIN_SIZE), 4)
        self._backdrop = context.texture((backdrops.SIZE, backdrops.SIZE), 3)
        self._uv = context.buffer(unroll(head.vertices).astype("f4").tobytes())
        self._indices = self._split_triangles()
        self._person: Person | None = None
        self._owned: list[moderngl.Buffer | moderngl.VertexArray] = []
        self._solids: list[tuple[moderngl.VertexArray, bool]] = []
        self._motion_arrays: list[moderngl.VertexArray] = []
        self._eye_motion: list[moderngl.VertexArray] = []

    def _split_triangles(self) -> dict[str, moderngl.Buffer]:
        groups = self._head.groups
        left = np.isin(groups["eyes"], np.arange(EYE_LEFT.start, EYE_LEFT.stop)).all(1)
        mouth = np.concatenate((groups["gums"], groups["teeth"]))
        above = self._head.vertices[:, 1] > -2.9  # of the gums: what the roots are in
        above[UPPER_TEETH], above[LOWER_TEETH] = True, False
        sets = {
            "upper_teeth": mouth[above[mouth].all(1)],
            "eye_left": groups["eyes"][left],
            "eye_right": groups["eyes"][~left],
            "lashes": groups["lashes"],
        }
        return {name: self._context.buffer(index.astype("i4").tobytes()) for name, index in sets.items()}

    def render(self, person: Person, pose: FramePose) -> np.ndarray:
        """One frame, uint8 [size, size, 3] RGB, top row first; the same for the same arguments."""
        return self.layered(person, pose)[0]

    def layered(self, person: Person, pose: FramePose) -> tuple[np.ndarray, np.ndarray]:
        """The same frame, and how much of each of its pixels is the person's and not the backdrop's, uint8 [size, size]."""
        self._stand(person, pose)
        return self._draw()

    def _stand(self, person: Person, pose: FramePose) -> None:
        if person != self._person:
            self._set_person(person)
        vertices, gaze = self._vertices(pose)
        self._moving.write(np.hstack([vertices, self._head.normals(vertices)]).astype("f4").tobytes())
        self._apply_pose(pose, gaze)

    def motion(self, person: Person, pose: FramePose, source: FramePose) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel of the frame at `pose` comes from in the picture at `source`, in pixels, as a displacement
        float32 [size, size, 2] (x right, y down; 0 for the backdrop), and whether it shows the inside of the mouth, bool [size, size]."""
        if person != self._person:
            self._set_person(person)
        vertices, _ = self._vertices(pose)
        self._moving.write(np.hstack([vertices, np.zeros_like(vertices)]).astype("f4").tobytes())
        self._source.write(self._vertices(source)[0].astype("f4").tobytes())
        for program in (self._programs["head_motion"], self._programs["solid_motion"]):
            self._place(program, pose, "u_")
            self._place(program, source, "u_source_")
        self._motion.use()
        self._motion.clear(depth=1.0)
        self._context.enable_only(moderngl.DEPTH_TEST)
        for array in self._motion_arrays:
            array.render()
        found = np.frombuffer(self._motion.read(components=4, dtype="f4"), np.float32).reshape(self.size, self.size, 4)[::-1]
        ramp = (np.arange(self.size) + 0.5) * 2.0 / self.size - 1.0
        here = np.stack(np.meshgrid(ramp, -ramp), axis=-1)
        shift = (found[..., :2] - here) * (self.size / 2.0) * np.array([1.0, -1.0])
        return (shift * found[..., 3:]).astype(np.float32), found[..., 2] > 0.5

    def eyes(self, person: Person, pose: FramePose) -> np.ndarray:
        """Which pixels of the frame at `pose` show an eyeball, bool [size, size]."""
        if person != self._person:
            self._set_person(person)
        vertices, _ = self._vertices(pose)
        self._moving.write(np.hstack([vertices, np.zeros_like(vertices)]).astype("f4").tobytes())
        for program in (self._programs["head_motion"], self._programs["solid_motion"]):
            self._place(program, pose, "u_")
        self._motion.use()
        self._motion.clear(depth=1.0)
        self._context.enable_only(moderngl.DEPTH_TEST)
        # All else only hides: it leaves its depth, and no colour.
        self._motion.color_mask = False, False, False, False
        self._motion.use()
        for array in self._motion_arrays:
            if array not in self._eye_motion:
                array.render()
        self._motion.color_mask = True, True, True, True
        self._motion.use()
        for array in self._eye_motion:
            array.render()
        found = np.frombuffer(self._motion.read(components=4, dtype="f4"), np.float32).reshape(self.size, self.size, 4)[::-1]
        return np.asarray(found.any(axis=-1))

    def upper_teeth(self, person: Person, pose: FramePose) -> np.ndarray:
        """The upper teeth in their gums, as if nothing hid them, uint8 RGBA [2 * size, 2 * size, 4], not premultiplied."""
        self._stand(person, pose)
        self._large.use()
        self._large.clear(depth=1.0)
        self._context.enable_only(moderngl.DEPTH_TEST | moderngl.CULL_FACE)
        self._programs["head"]["u_alpha"].value = 1.0
        self._skin.use(0)
        self._upper_teeth.render()
        side, step = 2 * self.size, _FINER // 2
        pixels = np.frombuffer(self._large.read(components=4), np.uint8).reshape(side, step, side, step, 4)[::-1].astype(np.float32)
        alpha = pixels[..., 3:] / 255.0
        colour = (pixels[..., :3] * alpha).sum(axis=(1, 3)) / np.maximum(alpha.sum(axis=(1, 3)), 1e-6)
        return np.concatenate((colour, 255.0 * alpha.mean(axis=(1, 3))), axis=-1).round().astype(np.uint8)

    def _vertices(self, pose: FramePose) -> tuple[np.ndarray, np.ndarray]:
        """The head's vertices before it turns, and the turn of the eyeballs."""
        weights = self._face.weights(pose)
        vertices = self._head.posed(self._neutral, weights)
        gaze = self._gaze_turn(pose)
        for eye, centre, ball, closed in zip(_EYES, self._centres, self._balls, self._face.lids(weights), strict=True):
            # A closed lid is thinner than the gap to some eyeballs: the ball gives way a little.
            vertices[eye] = ball @ gaze.T + centre - np.array([0, 0, 0.5 * closed**2], np.float32)
        return vertices, gaze

    @staticmethod
    def _gaze_turn(pose: FramePose) -> np.ndarray:
        cx, sx, cy, sy = np.cos(pose.gaze_x), np.sin(pose.gaze_x), np.cos(pose.gaze_y), np.sin(pose.gaze_y)
        yaw = np.array([[cx, 0, sx], [0, 1, 0], [-sx, 0, cx]])
        return (yaw @ np.array([[1, 0, 0], [0, cy, sy], [0, -sy, cy]])).astype(np.float32)

    def _apply_pose(self, pose: FramePose, gaze: np.ndarray) -> None:
        for name in ("head", "eye", "cloth", "hair"):
            self._place(self._programs[name], pose, "u_")
        self._programs["eye"]["u_gaze"].write(gaze.T.astype("f4").tobytes())

    @staticmethod
    def _place(program: Any, pose: FramePose, prefix: str) -> None:
        program[prefix + "angles"].value = (pose.yaw, pose.pitch, pose.roll)
        program[prefix + "shift"].value = (pose.x * stage.FACE_HEIGHT, pose.y * stage.FACE_HEIGHT, 0.0)
        program[prefix + "scale"].value = pose.scale

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        context = self._context
        self._large.use()
        self._large.clear(depth=1.0)
        self._draw_solids()
        # What comes now leaves alpha alone, which so says where the solids are.
        self._large.color_mask = True, True, True, False
        self._large.use()
        self._backdrop.use(0)
        self._screen.render(moderngl.TRIANGLE_STRIP)
        self._skin.use(0)
        context.enable_only(moderngl.DEPTH_TEST | moderngl.BLEND)
        self._programs["head"]["u_alpha"].value = 0.50 if self._person and self._person.feminine else 0.3
        self._lashes.render()
        context.enable_only(moderngl.NOTHING)
        self._large.color_mask = True, True, True, True
        self._small.use()
        self._colour.build_mipmaps()  # each level the mean of four pixels: the one drawn from has all samples
        self._colour.use(0)
        self._screen.render(moderngl.TRIANGLE_STRIP)
        pixels = np.frombuffer(self._small.read(components=4), np.uint8).reshape(self.size, self.size, 4)[::-1]
        return pixels[..., :3].copy(), pixels[..., 3].copy()

    def _draw_solids(self) -> None:
        # Front to back: hidden fragments are never shaded. Hair comes first, the backdrop last.
        self._skin.use(0)
        self._programs["head"]["u_alpha"].value = 1.0
        for array, culled in self._solids:
            self._context.enable_only(moderngl.DEPTH_TEST | (moderngl.CULL_FACE if culled else 0))
            array.render()
        for centre, array in zip(self._centres, self._eyeballs, strict=True):
            self._programs["eye"]["u_centre"].value = tuple(centre)
            array.render()

    def _set_person(self, person: Person) -> None:
        for item in self._owned:
            item.release()
        self._owned, self._solids, self._motion_arrays = [], [], []
        head = self._head
        self._face = RestingFace(head, head.neutral(np.array(person.identity, np.float32)))
        self._neutral = self._face.neutral
        normals = head.normals(self._neutral)
        self._centres = [_ball_centre(self._neutral[eye]) for eye in _EYES]
        self._balls = [_without_cornea(self._neutral[eye] - c) for eye, c in zip(_EYES, self._centres, strict=True)]
        self._skin.write(paint_skin(self._space, person).tobytes())
        self._backdrop.write(backdrops.paint(person)[::-1].tobytes())
        self._build_meshes(person, normals)
        for program in ("head", "eye", "cloth", "hair", "head_motion", "solid_motion"):
            stage.set_up(self._programs[program], person)
        self._programs["eye"]["u_iris"].value = person.eye_colour
        self._programs["hair"]["u_hair"].value = person.hair_colour
        self._person = person

    def _build_meshes(self, person: Person, normals: np.ndarray) -> None:
        head, neutral = self._head, self._neutral
        bust = np.flatnonzero(head.vertices[SKIN, 1] < -8.0)
        cloth = clothes.dress(person, neutral[bust], normals[bust])
        cards = hair.grow(head, person, neutral, normals, cloth.points, cloth.normals)
        frame = glasses.fit(person, neutral[head.landmarks68])
        opened = head.posed(neutral, 0.25 * np.eye(len(head.expression_names))[head.expression_names.index("jawOpen")])
        groups = head.groups
        casters = [(opened, np.concatenate([groups["skin"], groups["eyes"]])), (cloth.points, cloth.triangles)]
        casters += [(cards.points, cards.triangles)] if cards else []
        offsets = np.cumsum([0] + [len(points) for points, _ in casters])
        solid = np.concatenate([points for points, _ in casters])
        triangles = np.concatenate([index + offset for (_, index), offset in zip(casters, offsets, strict=False)])
        key = stage.key_direction(person)
        points = np.concatenate([opened, cloth.points] + ([cards.points] if cards else []))
        outward = np.concatenate([normals, cloth.normals] + ([cards.normals] if cards else []))
        light, seen = self._baker.bake(solid, triangles, points, outward, key)
        cuts = [len(opened), len(opened) + len(cloth.points)]
        head_light, cloth_light, hair_light = np.split(light, cuts)
        head_seen, cloth_seen, hair_seen = np.split(seen, cuts)
        if cards:
            columns = [cards.points, cards.normals, cards.tangents, cards.strand]
            self._add("hair", _in_sight(cards.triangles, cards.points, hair_seen), columns, hair_light)
        if frame:
            shade = np.ones((len(frame.points), 2), np.float32)
            self._add("cloth", frame.triangles, [frame.points, frame.normals, frame.colours, frame.surface], shade)
        self._add_head(person, head_light, head_seen)
        columns = [cloth.points, cloth.normals, cloth.colours, cloth.surface]
        self._add("cloth", _in_sight(cloth.triangles, cloth.points, cloth_seen), columns, cloth_light)

    def _add(self, program: str, triangles: np.ndarray, columns: list[np.ndarray], light: np.ndarray) -> None:
        points = columns[0]
        data = np.hstack([*columns, light, head_weight(points)[:, None]]).astype("f4")
        buffer, index = self._context.buffer(data.tobytes()), self._context.buffer(triangles.astype("i4").tobytes())
        third = ("3f", "in_tangent", "in_strand") if program == "hair" else ("3f", "in_colour", "in_surface")
        layout = (buffer, "3f 3f 3f 4f 3f", "in_position", "in_normal", third[1], third[2], "in_light")
        array = self._context.vertex_array(self._programs[program], [layout], index)
        still = [(buffer, "3f 48x 1f", "in_position", "in_weight"), (buffer, "3f 52x", "in_source")]
        moving = self._context.vertex_array(self._programs["solid_motion"], still, index)
        self._owned += [array, moving, buffer, index]
        self._solids.append((array, False))
        self._motion_arrays.append(moving)

    def _add_head(self, person: Person, light: np.ndarray, seen: np.ndarray) -> None:
        # The face and the mouth move: only the back of the head, the chest and the far teeth are out of sight for good.
        rest, index = self._head.vertices, np.arange(len(seen))
        seen = seen | (index >= SKIN.stop) | ((rest[:, 2] > -4.0) & (rest[:, 1] > -9.0) & (rest[:, 1] < 8.0))
        seen &= ~((index >= GUMS_TONGUE.start) & (index < EYE_LEFT.start) & (rest[:, 2] < 6.0))
        solid = np.concatenate([self._head.groups[name] for name in ("skin", "gums", "teeth")])
        visible = self._context.buffer(_in_sight(solid, rest, seen).astype("i4").tobytes())
        self._owned.append(visible)
        tone, gloss = self._tones(person, light)
        static = np.hstack([tone, light, head_weight(self._neutral)[:, None], gloss[:, None]]).astype("f4")
        buffer = self._context.buffer(static.tobytes())
        self._owned.append(buffer)
        arrays = {}
        for name, triangles in {**self._indices, "solid": visible}.items():
            content = [(self._moving, "3f 3f", "in_position", "in_normal"), (self._uv, "2f", "in_uv"),
                       (buffer, "4f 4f", "in_tone", "in_light")]
            program = self._programs["eye" if name.startswith("eye") else "head"]
            arrays[name] = self._context.vertex_array(program, content, triangles, skip_errors=True)
        tracked = [(self._moving, "3f 12x", "in_position"), (self._source, "3f", "in_source"),
                   (buffer, "12x 1f 8x 1f 4x", "in_inside", "in_weight")]
        for triangles in (visible, self._indices["eye_left"], self._indices["eye_right"]):
            self._motion_arrays.append(self._context.vertex_array(self._programs["head_motion"], tracked, triangles))
        self._eye_motion = self._motion_arrays[-2:]
        self._owned += [*arrays.values(), *self._motion_arrays[-3:]]
        self._solids.append((arrays["solid"], True))
        self._eyeballs = [arrays["eye_left"], arrays["eye_right"]]
        self._lashes = arrays["lashes"]
        self._upper_teeth = arrays["upper_teeth"]

    def _tones(self, person: Person, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colours of what is not painted skin; darkens the mouth towards the throat (in `light`, in place)."""
        rest = self._head.vertices
        tone, gloss = np.zeros((len(rest), 4), np.float32), np.full(len(rest), 0.4, np.float32)
        inside = smooth(3.5, 10.3, rest[:, 2])
        for part in (MOUTH_SOCKET, GUMS_TONGUE, UPPER_TEETH, LOWER_TEETH):
            light[part, 0] = 0.12 + 0.75 * inside[part]
            light[part, 1] = 0.05 + 0.55 * inside[part] ** 2
        aside = np.abs(rest[:, 0])
        tone[MOUTH_SOCKET] = (0.16, 0.035, 0.03, 1.0)
        tone[MOUTH_SOCKET, 3] = smooth(10.4, 9.3, rest[MOUTH_SOCKET, 2])
        tone[GUMS_TONGUE] = (0.36, 0.105, 0.10, 1.0)
        tone[UPPER_TEETH] = tone[LOWER_TEETH] = (0.72, 0.67, 0.58, 1.0)
        light[UPPER_TEETH, 0] += 0.15
        light[LOWER_TEETH] *= 0.8
        # Cheeks shade the teeth beside the middle; those of a turned, open jaw would look like a fang.
        light[UPPER_TEETH] *= 1.0 - 0.85 * smooth(1.4, 2.8, aside[UPPER_TEETH])[:, None]
        deep = smooth(0.6, 1.8, aside[LOWER_TEETH])[:, None]
        light[LOWER_TEETH] *= 1.0 - 0.85 * deep
        tone[LOWER_TEETH, :3] *= 1.0 - deep * np.array([0.40, 0.65, 0.67])
        gloss[UPPER_TEETH] = 1.0
        tone[LASHES, :3] = np.array(person.hair_colour) ** 2.2 * 0.25
        tone[LASHES, 3] = 1.0
        light[EYE_SOCKETS] = 0.4
        light[LASHES] = 0.7
        gloss[LASHES] = 0.0
        return tone, gloss


def _in_sight(triangles: np.ndarray, points: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Triangles with a corner that can be seen, nearest to the camera first."""
    kept = triangles[seen[triangles].any(1)]
    return kept[np.argsort(-points[kept, 2].sum(1), kind="stable")]


def _ball_centre(points: np.ndarray) -> np.ndarray:
    """Centre of the eyeball: the bulk is a sphere, only the cornea bulges out in front."""
    centre = (points.min(0) + points.max(0)) / 2
    centre[2] = points[:, 2].min() + 1.55
    return centre


def _without_cornea(points: np.ndarray) -> np.ndarray:
    """The iris is painted on the ball itself: the transparent bulge in front of it is pressed flat."""
    length = np.linalg.norm(points, axis=1, keepdims=True)
    return points * np.minimum(1.0, 1.5 / length)
