"""GLSL of the presenter renderer: one pose function, one light model, and a fragment shader a material."""

from __future__ import annotations

_VERSION = "#version 330\n"

POSE = """
uniform mat4 u_camera;
uniform vec3 u_angles;   // yaw, pitch, roll
uniform vec3 u_shift;
uniform float u_scale;
const vec3 PIVOT = vec3(0.0, -7.0, -1.0);
// The neck twists: every vertex turns by its own share of the angles.
mat3 turn(float weight, vec3 angles) {
    vec3 a = angles * weight;
    vec3 c = cos(a), s = sin(a);
    mat3 yaw = mat3(c.x, 0, -s.x, 0, 1, 0, s.x, 0, c.x);
    mat3 pitch = mat3(1, 0, 0, 0, c.y, -s.y, 0, s.y, c.y);
    mat3 roll = mat3(c.z, -s.z, 0, s.z, c.z, 0, 0, 0, 1);
    return roll * yaw * pitch;
}
vec3 place(vec3 p, float weight, mat3 r, vec3 shift, float scale) {
    return r * ((p - PIVOT) * mix(1.0, scale, weight)) + PIVOT + shift * weight;
}
"""

LIGHT = """
uniform vec3 u_eye;
uniform vec3 u_key_direction;
uniform vec3 u_key;
uniform vec3 u_fill;
uniform vec3 u_rim;
// Gamma 2 instead of 2.2, and powers by squaring: pow is what a CPU rasteriser spends its time in.
vec3 linear(vec3 c) { return c * c; }
vec3 display(vec3 c) {
    c = c * (1.0 + 0.10 * c) / (1.0 + 0.32 * c);
    return sqrt(clamp(c, 0.0, 1.0));
}
// light: x = ambient visibility, y = visibility of the key. wrap per channel softens the terminator (red most: skin).
vec3 diffuse(vec3 n, vec2 light, vec3 wrap) {
    float facing = dot(n, u_key_direction);
    vec3 key = max((facing + wrap) / (1.0 + wrap), 0.0);
    key = key * mix(0.15 + 0.6 * wrap, vec3(1.0), light.y);
    vec3 fill_direction = normalize(vec3(-u_key_direction.x * 1.3, 0.1, 0.75));
    float fill = max(0.5 + 0.5 * dot(n, fill_direction), 0.0);
    vec3 sky = mix(vec3(0.20, 0.17, 0.15), vec3(0.40, 0.42, 0.45), 0.5 + 0.5 * n.y);
    return u_key * key + (u_fill * fill + sky) * light.x;
}
float pow4(float x) { x *= x; return x * x; }
float pow16(float x) { return pow4(pow4(x)); }
float mirror(vec3 n, vec3 v) { return max(dot(n, normalize(u_key_direction + v)), 0.0); }
vec3 rim(vec3 n, vec3 v, float ao) {
    float edge = 1.0 - max(dot(n, v), 0.0);
    edge *= edge * edge;
    float behind = smoothstep(-0.2, 0.7, dot(n, normalize(vec3(-u_key_direction.x, 0.5, -0.35))));
    return u_rim * edge * behind * ao;
}
"""

HEAD_VERTEX = _VERSION + POSE + """
in vec3 in_position; in vec3 in_normal;
in vec2 in_uv; in vec4 in_tone; in vec4 in_light;  // light: ambient, key, head weight, gloss
out vec3 position; out vec3 normal; out vec2 uv; out vec4 tone; out vec4 light; out vec3 rest;
void main() {
    mat3 r = turn(in_light.z, u_angles);
    position = place(in_position, in_light.z, r, u_shift, u_scale);
    normal = r * in_normal; uv = in_uv; tone = in_tone; light = in_light; rest = in_position;
    gl_Position = u_camera * vec4(position, 1.0);
}
"""

HEAD_FRAGMENT = _VERSION + LIGHT + """
in vec3 position; in vec3 normal; in vec2 uv; in vec4 tone; in vec4 light;
uniform sampler2D u_skin;
uniform float u_alpha;
out vec4 pixel;
void main() {
    vec3 n = normalize(normal), v = normalize(u_eye - position);
    if (dot(n, v) < 0.0 && u_alpha < 1.0) n = -n;
    vec4 painted = texture(u_skin, uv);
    vec3 albedo = mix(linear(painted.rgb), tone.rgb, tone.a);
    vec3 wrap = mix(vec3(0.55, 0.36, 0.30), vec3(0.3), tone.a);
    vec3 lit = albedo * diffuse(n, light.xy, wrap);
    float oil = mix(painted.a, light.w, tone.a);
    float fresnel = 0.35 + 0.65 * pow4(1.0 - max(dot(n, v), 0.0));
    float broad = pow16(mirror(n, v));
    float shine = 0.08 * broad + 0.15 * pow4(broad);
    lit += u_key * oil * shine * fresnel * mix(0.3, 1.0, light.y) * light.x;
    lit += rim(n, v, light.x) * mix(vec3(1.0), albedo, 0.6);
    pixel = vec4(display(lit), u_alpha);
}
"""

EYE_FRAGMENT = _VERSION + LIGHT + """
in vec3 position; in vec3 normal; in vec3 rest; in vec4 light;
uniform vec3 u_centre;      // of the eyeball, before the pose
uniform mat3 u_gaze;        // eyeball turn; columns
uniform vec3 u_iris;
uniform vec2 u_glint;       // where the key light mirrors, in eye radii
out vec4 pixel;
float hash(float x) { return fract(sin(x * 91.7) * 4375.5); }
void main() {
    vec3 n = normalize(normal), v = normalize(u_eye - position);
    vec3 local = (rest - u_centre) / 1.5;
    vec3 eye = transpose(u_gaze) * local;
    float radius = length(eye.xy) + 10.0 * step(eye.z, 0.0);
    vec3 white = vec3(0.70, 0.66, 0.635) - vec3(0.02, 0.14, 0.14) * smoothstep(0.5, 1.0, abs(local.x));
    vec3 iris = linear(u_iris);
    float angle = atan(eye.y, eye.x);
    float fibre = 0.8 + 0.25 * sin(angle * 19.0) * sin(angle * 31.0 + 1.0);
    float ring = smoothstep(0.17, 0.42, radius);
    vec3 disc = iris * fibre * mix(1.35, 0.75, ring) * (1.15 - 0.9 * local.y);
    disc *= 1.0 - 0.72 * smoothstep(0.36, 0.46, radius);
    disc = mix(vec3(0.006), disc, smoothstep(0.155, 0.20, radius));
    vec3 albedo = mix(disc, white, smoothstep(0.43, 0.50, radius));
    // The upper lid and its lashes shade the ball; the corners lie deeper.
    float shade = 1.0 - smoothstep(-0.02, 0.42, local.y);
    shade = mix(0.30, 1.0, shade) * (1.0 - 0.45 * smoothstep(0.55, 1.0, abs(local.x)));
    vec3 lit = albedo * diffuse(normalize(mix(n, vec3(0, 0, 1), 0.45)), vec2(0.95, 0.9), vec3(0.5)) * shade;
    float glint = smoothstep(0.135, 0.07, length(eye.xy * 0.5 + local.xy * 0.5 - u_glint));
    lit += vec3(1.6) * glint * shade * step(0.0, eye.z);
    lit += u_key * 0.12 * pow4(pow16(mirror(n, v)));
    pixel = vec4(display(lit), 1.0);
}
"""

CLOTH_VERTEX = _VERSION + POSE + """
in vec3 in_position; in vec3 in_normal; in vec3 in_colour; in vec4 in_surface; in vec3 in_light;
out vec3 position; out vec3 normal; out vec3 colour; out vec4 surface; out vec2 light;
void main() {
    mat3 r = turn(in_light.z, u_angles);
    position = place(in_position, in_light.z, r, u_shift, u_scale);
    normal = r * in_normal; colour = in_colour; surface = in_surface; light = in_light.xy;
    gl_Position = u_camera * vec4(position, 1.0);
}
"""

CLOTH_FRAGMENT = _VERSION + LIGHT + """
in vec3 position; in vec3 normal; in vec3 colour; in vec4 surface; in vec2 light;
out vec4 pixel;
float hash(vec2 p) { return fract(sin(dot(p, vec2(12.9898, 78.233))) * 43758.5453); }
void main() {
    vec3 n = normalize(normal), v = normalize(u_eye - position);
    if (dot(n, v) < 0.0) n = -n;
    vec2 uv = surface.xy;
    vec3 albedo = linear(colour);
    float kind = surface.w;
    if (kind > 3.5) { albedo *= 0.86 + 0.14 * sin(uv.x * 13.0); n.x += 0.12 * cos(uv.x * 13.0); }
    else if (kind > 2.5) {
        vec2 cell = uv * vec2(2.6, 3.4);
        albedo *= 0.93 + 0.07 * sin(cell.x * 6.283) * sin(cell.y * 6.283 + 2.0 * abs(fract(cell.x) - 0.5));
    } else if (kind > 1.5) {
        vec2 line = smoothstep(0.80, 0.9, abs(fract(uv * vec2(0.75, 0.75)) * 2.0 - 1.0));
        albedo *= 1.0 - 0.22 * line.x - 0.22 * line.y;
    } else if (kind > 0.5) {
        albedo *= 1.0 - 0.30 * smoothstep(0.55, 0.75, abs(fract(uv.x * 0.95) * 2.0 - 1.0));
    }
    if (surface.z < 0.2) albedo *= 0.97 + 0.06 * hash(floor(uv * 9.0));
    n = normalize(n);
    vec3 lit = albedo * diffuse(n, light, vec3(0.25));
    lit += u_key * surface.z * (surface.z > 0.2 ? 3.0 * pow4(pow16(mirror(n, v))) : 0.5 * pow4(mirror(n, v))) * light.y;
    lit += rim(n, v, light.x) * mix(vec3(0.35), albedo, 0.5);
    pixel = vec4(display(lit), 1.0);
}
"""

HAIR_VERTEX = _VERSION + POSE + """
in vec3 in_position; in vec3 in_normal; in vec3 in_tangent; in vec4 in_strand; in vec3 in_light;
out vec3 position; out vec3 normal; out vec3 tangent; out vec4 strand; out vec2 light;
void main() {
    mat3 r = turn(in_light.z, u_angles);
    position = place(in_position, in_light.z, r, u_shift, u_scale);
    normal = r * in_normal; tangent = r * in_tangent; strand = in_strand; light = in_light.xy;
    gl_Position = u_camera * vec4(position, 1.0);
}
"""

HAIR_FRAGMENT = _VERSION + LIGHT + """
in vec3 position; in vec3 normal; in vec3 tangent; in vec4 strand; in vec2 light;
uniform vec3 u_hair;
out vec4 pixel;
float hash(float x) { return fract(sin(x * 12.9898) * 43758.5453); }
void main() {
    float cell = floor(strand.x * 7.0) + strand.z * 7.0;
    float random = hash(cell);
    if (strand.y > 0.70 + 0.34 * random) discard;
    vec3 n = normalize(normal), t = normalize(tangent), v = normalize(u_eye - position);
    vec3 colour = linear(u_hair) * (0.78 + 0.44 * hash(cell + 7.0)) * (1.0 + 0.13 * strand.w);
    colour *= mix(0.72, 1.12, smoothstep(0.0, 0.7, strand.y));
    vec3 lit = colour * diffuse(n, light * 0.85 + 0.15, vec3(0.35)) * mix(0.75, 1.0, light.x);
    vec3 h = normalize(u_key_direction + v);
    float shifted = dot(t, h) + 0.12 * (random - 0.5) + 0.05;
    float band = pow16(1.0 - shifted * shifted);
    band *= band;
    float wide = 1.0 - (shifted - 0.15) * (shifted - 0.15);
    wide = pow4(wide * wide);
    float front = smoothstep(-0.1, 0.6, dot(n, u_key_direction));
    lit += u_key * front * light.y * light.x * (0.10 * band + wide * 0.35 * colour);
    lit += rim(n, v, light.x * light.x) * (0.02 + 0.9 * colour);
    pixel = vec4(display(lit), 1.0);
}
"""

SCREEN_VERTEX = _VERSION + """
in vec2 in_corner;
out vec2 uv;
void main() { uv = in_corner * 0.5 + 0.5; gl_Position = vec4(in_corner, 0.9999, 1.0); }
"""

SCREEN_FRAGMENT = _VERSION + """
in vec2 uv;
uniform sampler2D u_picture;
out vec4 pixel;
void main() { pixel = texture(u_picture, uv); }
"""

# Where every visible point of this frame lies in the source picture (normalised device coordinates), and how much it is
# inside the mouth: motion that needs no estimating. Hair and clothes have no inside and move only with the head.
def _motion_vertex(inside: str) -> str:
    return _VERSION + POSE + inside + """
in vec3 in_position; in vec3 in_source; in float in_weight;
uniform vec3 u_source_angles; uniform vec3 u_source_shift; uniform float u_source_scale;
out vec3 source;
void main() {
    gl_Position = u_camera * vec4(place(in_position, in_weight, turn(in_weight, u_angles), u_shift, u_scale), 1.0);
    mat3 r = turn(in_weight, u_source_angles);
    vec4 was = u_camera * vec4(place(in_source, in_weight, r, u_source_shift, u_source_scale), 1.0);
    source = vec3(was.xy / was.w, in_inside);
}
"""


HEAD_MOTION_VERTEX = _motion_vertex("in float in_inside;")
SOLID_MOTION_VERTEX = _motion_vertex("const float in_inside = 0.0;")
MOTION_FRAGMENT = _VERSION + "in vec3 source; out vec4 pixel; void main() { pixel = vec4(source, 1.0); }"

DEPTH_VERTEX = _VERSION + """
in vec3 in_position;
uniform mat4 u_camera;
void main() { gl_Position = u_camera * vec4(in_position, 1.0); }
"""

DEPTH_FRAGMENT = _VERSION + "out vec4 pixel; void main() { pixel = vec4(1.0); }"
